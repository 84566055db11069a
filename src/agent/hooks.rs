//! Runs the operator's commands on role changes: without a shell, one at a time, with a time limit.

use crate::os::process;
use std::process::Stdio;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// A longer hook is killed, because the next role change must not wait for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// Role changes that may wait for a slow hook. Beyond this a new run is dropped with a warning.
const WAITING: usize = 16;

/// One run of a hook.
#[derive(Debug)]
pub(super) struct Run {
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// The `KEEPCALL_*` variables.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// Runs hooks in the order of the requests.
#[derive(Clone, Debug)]
pub(super) struct Hooks(mpsc::Sender<Run>);

impl Hooks {
    pub(super) fn start(instance: String) -> Self {
        let (tx, mut rx) = mpsc::channel::<Run>(WAITING);
        tokio::spawn(async move {
            while let Some(run) = rx.recv().await {
                execute(&instance, run).await;
            }
        });
        Self(tx)
    }

    pub(super) fn run(&self, command: Option<&Vec<String>>, environment: Vec<(&'static str, String)>) {
        let Some(command) = command else { return };
        if let Err(e) = self.0.try_send(Run { command: command.clone(), environment }) {
            warn!(hook = command.first(), "hook not run: {WAITING} runs are waiting already ({e})");
        }
    }
}

async fn execute(instance: &str, run: Run) {
    let Some((program, arguments)) = run.command.split_first() else { return };
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(run.environment)
        .env("KEEPCALL_INSTANCE", instance)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => {
            warn!(instance, program, "cannot start the hook: {e}; check its path and file mode");
            return;
        }
    };
    match tokio::time::timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => info!(instance, program, "hook done"),
        Ok(Ok(status)) => warn!(instance, program, "hook failed: {status}"),
        Ok(Err(e)) => warn!(instance, program, "cannot wait for the hook: {e}"),
        Err(_) => {
            warn!(instance, program, "hook killed: it ran longer than {LIMIT:?}");
            // The hook leads its own process group, so the signal also kills its children.
            if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
                process::kill_group(pid);
            }
            let _ = child.wait().await;
        }
    }
}
