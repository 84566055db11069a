//! Mistakes in a configuration file: what, where, and what to write instead.

use serde::Serialize;
use std::fmt;
use std::io;

/// One mistake or warning in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line, from 1; 0 if the problem has no place in the file.
    pub line: usize,
    /// Column in characters, from 1; 0 if the problem has no place in the file.
    pub column: usize,
    /// Number of characters to mark.
    pub width: usize,
    /// The line as it stands in the file.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// The expected form, or what to write instead.
    pub help: Option<String>,
}

impl Problem {
    /// Writes the problem for people: `word` is "error" or "warning".
    fn render(&self, f: &mut fmt::Formatter<'_>, origin: &str, word: &str) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{origin}: {word}: {}", self.message)?;
        } else {
            let gutter = self.line.to_string().len();
            write!(f, "{origin}:{}:{}: {word}: {}", self.line, self.column, self.message)?;
            write!(f, "\n{:gutter$} |\n{} | {}", "", self.line, self.text)?;
            // A tab stays a tab, so that the caret lines up whatever the tab width.
            let indent: String =
                self.text.chars().take(self.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            write!(f, "\n{:gutter$} | {indent}{}", "", "^".repeat(self.width.max(1)))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  = {help}"),
            None => Ok(()),
        }
    }

    /// The problem as a warning about the file `origin`, for people.
    #[must_use]
    pub fn as_warning(&self, origin: &str) -> String {
        struct Shown<'a>(&'a Problem, &'a str);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.render(f, self.1, "warning")
            }
        }
        Shown(self, origin).to_string()
    }
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    Read {
        /// The file.
        origin: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file is wrong.
    Invalid {
        /// The file.
        origin: String,
        /// Every mistake, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { origin, source } => {
                write!(f, "cannot read the configuration {origin}: {source}")?;
                match source.kind() {
                    io::ErrorKind::NotFound => write!(f, "\n  = name the file with --config FILE"),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "\n  = run keepcall as root, or let this user read the file")
                    }
                    io::ErrorKind::InvalidData => write!(f, "\n  = save the file as UTF-8"),
                    _ => Ok(()),
                }
            }
            Self::Invalid { origin, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n\n")?;
                    }
                    problem.render(f, origin, "error")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}
