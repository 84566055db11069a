//! `keepcall check-config`

use super::output::{Output, complain};
use super::{BAD_CONFIG, Global};
use crate::config::{self, ConfigError, Files};
use std::path::PathBuf;

/// Arguments of `keepcall check-config`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Configuration file [default: the file of --config]
    file: Option<PathBuf>,
    /// Do not check files, group, interfaces and addresses on this host (for the configuration of another host)
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
    match config::load_with(path, files) {
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
