//! Log lines on standard error: for people, for the journal, or as JSON.

mod beside;

pub use beside::Written;

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[error(
    "{filter:?} is not a log level: {why}\n  = write error, warn, info, debug or trace, or target=level pairs \
     separated by commas"
)]
pub struct LogError {
    filter: String,
    why: String,
}

/// Starts logging at `level` (as in `--log` or `KEEPCALL_LOG`; "info" by default).
///
/// A thread of its own writes the lines of all threads, until the returned value is dropped.
///
/// Under systemd (`JOURNAL_STREAM` is set) each line begins with its priority, `<4>`, and has no time: the journal adds
/// its own.
///
/// # Errors `level` is no filter, or logging was already started.
pub fn init(level: Option<&str>, json: bool) -> Result<Option<Written>, LogError> {
    let filter = level.unwrap_or("info");
    let failed = |why: String| LogError { filter: filter.to_owned(), why };
    let parsed = EnvFilter::try_new(filter).map_err(|e| failed(e.to_string()))?;
    let (writer, written) = match beside::start(std::io::stderr()) {
        Ok((lines, written)) => (BoxMakeWriter::new(lines), Some(written)),
        // Without that thread, each thread writes its own lines.
        Err(_) => (BoxMakeWriter::new(std::io::stderr), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.event_format(Journal).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    started.map_err(|e| failed(e.to_string()))?;
    Ok(written)
}

/// Lines for the journal: sd-daemon(3) reads the priority from their start.
struct Journal;

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Journal {
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests;
