//! Reads a configuration file, and checks the files named in it.

mod files;
mod host;

use super::error::{ConfigError, Problem};
use super::model::Config;
use super::source::Source;
use super::{check, schema};
use serde::Deserialize as _;
use std::path::Path;
use toml::de::DeTable;

/// Whether to check what the configuration names on this host: files, the group, interfaces, addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They must exist and be usable: for the agent.
    Check,
    /// They are ignored: for checking another host's configuration here.
    Ignore,
}

/// A configuration that passes every rule.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed values.
    pub config: Config,
    /// Values that are allowed but probably mistaken, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// A larger file is a mistake (a log file, a device): 1 MiB holds thousands of instances.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks the file at `path`, and checks the files named in it.
///
/// # Errors The file cannot be read, or it is wrong; then the error lists every mistake with its place.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    load_with(path, Files::Check)
}

/// Like [`load`], with a choice about the files named in the configuration.
///
/// # Errors As [`load`].
pub fn load_with(path: &Path, files: Files) -> Result<Loaded, ConfigError> {
    parse(&text_of(path)?, &path.display().to_string(), files)
}

/// The text of a configuration file.
///
/// # Errors
/// The file cannot be read.
pub fn text_of(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let read = || {
        let mut text = String::new();
        let taken = std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if taken as u64 > MAX_BYTES {
            return Err(std::io::Error::other("the file is larger than 1 MiB, the limit for a configuration"));
        }
        Ok(text)
    };
    read().map_err(|source| ConfigError::Read { origin: path.display().to_string(), source })
}

/// Checks the text of a configuration; `origin` names it in errors.
///
/// # Errors
/// The text is wrong; the error lists every mistake with its place.
pub fn parse(text: &str, origin: &str, files: Files) -> Result<Loaded, ConfigError> {
    let mut source = Source::new(text);
    let invalid = |mut problems: Vec<Problem>| {
        problems.sort_by_key(|p| (p.line == 0, p.line, p.column));
        ConfigError::Invalid { origin: origin.to_owned(), problems }
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut problems: Vec<Problem> = Vec::new();
        for e in errors {
            let help = "the file is not valid TOML: write `key = value` lines below [section] headers".to_owned();
            let problem = source.problem_at(e.span(), tidy(e.message()), Some(help));
            // One slip confuses the parser for the rest of its line.
            if problems.last().is_none_or(|last| last.line != problem.line) {
                problems.push(problem);
            }
        }
        return Err(invalid(problems));
    }
    let mut problems = schema::walk(&document, &mut source);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    let config = match Config::deserialize(toml::de::Deserializer::from(document)) {
        Ok(config) => config,
        Err(e) => return Err(invalid(vec![source.problem_at(e.span(), tidy(e.message()), None)])),
    };
    let mut found = check::Found::default();
    check::check(&config, &source, &mut found);
    if files == Files::Check {
        files::check(&config, &source, &mut found);
        host::check(&config, &source, &mut found);
    }
    problems.append(&mut found.errors);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    found.warnings.sort_by_key(|p| (p.line == 0, p.line, p.column));
    Ok(Loaded { config, warnings: found.warnings })
}

/// A parser's message on one line.
fn tidy(message: &str) -> String {
    message.trim().replace('\n', "; ")
}
