//! `keepcall check-config`

use super::output::{Output, complain};
use super::{BAD_CONFIG, Global};
use crate::config::{self, ConfigError, Files, Loaded};
use std::path::{Path, PathBuf};

/// Arguments of `keepcall check-config`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Configuration file [default: the file of --config]
    file: Option<PathBuf>,
    /// Do not check the files and the group that the configuration names (for the configuration of another host)
    #[arg(long)]
    no_files: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &CheckArgs) -> Result<(), u8> {
    let path = args.file.as_deref().unwrap_or(global.config_path());
    let files = if args.no_files { Files::Ignore } else { Files::Check };
    let origin = path.display().to_string();
    let mut out = Output::new();
    match config::load_with(path, files).or_else(|e| files_to_come(path, e)) {
        Ok(loaded) if args.json => {
            out.json(&serde_json::json!({ "ok": true, "file": origin, "errors": [], "warnings": loaded.warnings }));
            Ok(())
        }
        Ok(loaded) => {
            for warning in &loaded.warnings {
                out.line(&format!("{}\n", warning.as_warning(&origin)));
            }
            let (instances, warnings) = (loaded.config.instances.len(), loaded.warnings.len());
            let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
            out.line(&format!("{origin}: good ({}, {})", plural(instances, "instance"), plural(warnings, "warning")));
            Ok(())
        }
        Err(e) => {
            if args.json {
                let errors = match &e {
                    ConfigError::Read { .. } => serde_json::json!([{ "message": e.to_string() }]),
                    ConfigError::Invalid { problems, .. } => serde_json::json!(problems),
                };
                out.json(&serde_json::json!({ "ok": false, "file": origin, "errors": errors, "warnings": [] }));
            } else {
                complain(&format!("cannot use the configuration\n\n{e}"));
            }
            Err(BAD_CONFIG)
        }
    }
}

/// A file whose only faults are files not usable here (yet) passes, and those faults become warnings: the agent itself
/// waits for those files.
fn files_to_come(path: &Path, e: ConfigError) -> Result<Loaded, ConfigError> {
    let ConfigError::Invalid { origin, problems } = e else { return Err(e) };
    let Ok(mut loaded) = config::load_with(path, Files::Ignore) else {
        return Err(ConfigError::Invalid { origin, problems });
    };
    loaded.warnings.extend(problems.into_iter().map(|mut p| {
        p.message.push_str("; the agent waits until this is repaired");
        p
    }));
    Ok(loaded)
}
