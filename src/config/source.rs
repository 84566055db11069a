//! The text of a configuration file, with the place of each key.

use super::error::Problem;
use std::collections::BTreeMap;
use std::ops::Range;

/// A file's text with the byte ranges of its keys and values, by key path (`instance[0].check[1].timeout`).
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    spans: BTreeMap<String, Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, spans: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, path: &str, span: Range<usize>) {
        self.spans.insert(path.to_owned(), span);
    }

    /// Whether the file itself sets `path`; otherwise the value is a default.
    pub(super) fn has(&self, path: &str) -> bool {
        self.spans.contains_key(path)
    }

    /// A problem with the value at `path`. If the file omits the value, points at the nearest enclosing table.
    pub(super) fn problem(&self, path: &str, message: impl Into<String>, help: impl Into<String>) -> Problem {
        let mut at = path;
        loop {
            if let Some(span) = self.spans.get(at) {
                return self.problem_at(Some(span.clone()), message, Some(help.into()));
            }
            match at.rfind(['.', '[']) {
                Some(cut) => at = &at[..cut],
                None => return self.problem_at(None, message, Some(help.into())),
            }
        }
    }

    /// A problem at the bytes `span` of the file.
    pub(super) fn problem_at(
        &self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Problem {
        let Some(span) = span else {
            return Problem { line: 0, column: 0, width: 0, text: String::new(), message: message.into(), help };
        };
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = self.text[line_start..].lines().next().unwrap_or("");
        let lead = before.get(line_start..).map_or(0, |s| s.chars().count());
        let line_end = line_start + line.len();
        let width = self.text.get(start..span.end.min(line_end)).map_or(1, |s| s.chars().count()).max(1);
        Problem {
            line: before.matches('\n').count() + 1,
            column: lead + 1,
            width,
            text: line.to_owned(),
            message: message.into(),
            help,
        }
    }
}
