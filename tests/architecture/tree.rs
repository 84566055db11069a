//! The source as modules, with the full paths that each module names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use syn::visit::Visit;

/// One file.
pub(crate) struct Module {
    /// Relative to `src`, with slashes.
    pub(crate) file: String,
    /// Its path in the crate: `["calls", "tracker", "leg"]`.
    pub(crate) path: Vec<String>,
    /// Lines of the file.
    pub(crate) lines: usize,
    /// All names in its code, without tests.
    pub(crate) names: Vec<Name>,
    /// All words of its code with their lines, in tests and attributes as well, but not in comments and strings.
    pub(crate) words: Vec<(usize, String)>,
}

/// A path named in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    /// From the crate's root, with `crate` left out; for another crate, that crate's name first.
    pub(crate) path: Vec<String>,
    /// The path begins at the root of this crate.
    pub(crate) own: bool,
    /// The path is re-exported: `pub use`.
    pub(crate) again: bool,
}

impl Name {
    pub(crate) fn text(&self) -> String {
        self.path.join("::")
    }
}

/// Reads every file below `src`.
pub(crate) fn read(src: &Path) -> Vec<Module> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<Module>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let file = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                out.push(Module::parse(&file, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut out = Vec::new();
    walk(src, src, &mut out);
    out.sort_by(|a, b| a.file.cmp(&b.file));
    out
}

impl Module {
    /// # Panics The text is not Rust.
    pub(crate) fn parse(file: &str, text: &str) -> Self {
        let path = module_path(file);
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut found = Found { at: path.clone(), known: BTreeMap::new(), names: Vec::new() };
        found.learn(&parsed.items);
        found.visit_file(&parsed);
        let mut all = Vec::new();
        words(text.parse().unwrap_or_else(|e| panic!("{file}: {e}")), &mut all);
        Self { file: file.to_owned(), path, lines: text.lines().count(), names: found.names, words: all }
    }
}

fn words(tokens: proc_macro2::TokenStream, out: &mut Vec<(usize, String)>) {
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Ident(word) => out.push((word.span().start().line, word.to_string())),
            proc_macro2::TokenTree::Group(group) => words(group.stream(), out),
            _ => {}
        }
    }
}

fn module_path(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut path: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

/// Gathers names, and resolves their first words.
struct Found {
    at: Vec<String>,
    /// The meaning of a first word in this file, from its `use` lines.
    known: BTreeMap<String, (Vec<String>, bool)>,
    names: Vec<Name>,
}

impl Found {
    /// Notes the names that the `use` lines of these items import.
    fn learn(&mut self, items: &[syn::Item]) {
        for item in items {
            if let syn::Item::Use(u) = item
                && !is_test(&u.attrs)
            {
                for (path, alias) in flat(&u.tree) {
                    if let Some((path, own)) = self.resolved(&path) {
                        self.known.insert(alias, (path, own));
                    }
                }
            }
        }
    }

    /// The path from the root; `None` for a local name (a variable, a type parameter, an item of this file).
    fn resolved(&self, path: &[String]) -> Option<(Vec<String>, bool)> {
        let first = path.first()?.as_str();
        let mut base = self.at.clone();
        let mut rest = path;
        match first {
            "crate" => return Some((path[1..].to_vec(), true)),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|p| p == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            _ => {
                if let Some((known, own)) = self.known.get(first) {
                    return Some((known.iter().chain(&path[1..]).cloned().collect(), *own));
                }
                return (path.len() > 1).then(|| (path.to_vec(), false));
            }
        }
        base.extend(rest.iter().cloned());
        Some((base, true))
    }

    fn add(&mut self, path: &[String], line: usize, again: bool) {
        if let Some((path, own)) = self.resolved(path) {
            self.names.push(Name { line, path, own, again });
        }
    }

    /// Macros are not parsed; their tokens are searched for paths.
    fn tokens(&mut self, tokens: &str, line: usize) {
        let words: Vec<&str> = tokens.split_whitespace().collect();
        let mut i = 0;
        while i < words.len() {
            let mut path = vec![words[i].trim_matches(|c: char| !c.is_alphanumeric() && c != '_').to_owned()];
            while words.get(i + 1) == Some(&"::") && i + 2 < words.len() {
                path.push(words[i + 2].trim_matches(|c: char| !c.is_alphanumeric() && c != '_').to_owned());
                i += 2;
            }
            if path.len() > 1 {
                self.add(&path, line, false);
            }
            i += 1;
        }
    }
}

impl<'a> Visit<'a> for Found {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attrs: &[syn::Attribute] = match item {
            syn::Item::Mod(i) => &i.attrs,
            syn::Item::Fn(i) => &i.attrs,
            syn::Item::Impl(i) => &i.attrs,
            syn::Item::Use(i) => &i.attrs,
            syn::Item::Const(i) => &i.attrs,
            _ => &[],
        };
        if !is_test(attrs) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, f: &'a syn::ImplItemFn) {
        if !is_test(&f.attrs) {
            syn::visit::visit_impl_item_fn(self, f);
        }
    }

    fn visit_stmt(&mut self, s: &'a syn::Stmt) {
        let attrs: &[syn::Attribute] = match s {
            syn::Stmt::Local(l) => &l.attrs,
            syn::Stmt::Macro(m) => &m.attrs,
            syn::Stmt::Expr(syn::Expr::If(e), _) => &e.attrs,
            syn::Stmt::Expr(syn::Expr::Block(e), _) => &e.attrs,
            _ => &[],
        };
        if !is_test(attrs) {
            syn::visit::visit_stmt(self, s);
        }
    }

    fn visit_item_mod(&mut self, m: &'a syn::ItemMod) {
        let Some((_, items)) = &m.content else { return };
        let known = self.known.clone();
        self.at.push(m.ident.to_string());
        self.learn(items);
        syn::visit::visit_item_mod(self, m);
        self.at.pop();
        self.known = known;
    }

    fn visit_item_use(&mut self, u: &'a syn::ItemUse) {
        let line = u.use_token.span.start().line;
        for (path, _) in flat(&u.tree) {
            self.add(&path, line, !matches!(u.vis, syn::Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, p: &'a syn::Path) {
        let segments: Vec<String> = p.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = p.segments.first().map_or(0, |s| s.ident.span().start().line);
        if segments.len() > 1 {
            self.add(&segments, line, false);
        }
        syn::visit::visit_path(self, p);
    }

    fn visit_macro(&mut self, m: &'a syn::Macro) {
        self.visit_path(&m.path);
        let line = m.path.segments.first().map_or(0, |s| s.ident.span().start().line);
        self.tokens(&m.tokens.to_string(), line);
    }
}

/// Whether an item is compiled for tests only.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|a| {
        a.path().is_ident("test")
            || (a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test")))
    })
}

/// Each path of a `use` line, with its local name.
fn flat(tree: &syn::UseTree) -> Vec<(Vec<String>, String)> {
    fn go(tree: &syn::UseTree, before: &[String], out: &mut Vec<(Vec<String>, String)>) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(p) => go(&p.tree, &with(p.ident.to_string()), out),
            syn::UseTree::Group(g) => g.items.iter().for_each(|t| go(t, before, out)),
            syn::UseTree::Name(n) if n.ident == "self" => {
                out.push((before.to_vec(), before.last().cloned().unwrap_or_default()));
            }
            syn::UseTree::Name(n) => out.push((with(n.ident.to_string()), n.ident.to_string())),
            syn::UseTree::Rename(r) if r.ident == "self" => out.push((before.to_vec(), r.rename.to_string())),
            syn::UseTree::Rename(r) => out.push((with(r.ident.to_string()), r.rename.to_string())),
            syn::UseTree::Glob(_) => out.push((with("*".to_owned()), "*".to_owned())),
        }
    }
    let mut out = Vec::new();
    go(tree, &[], &mut out);
    out
}
