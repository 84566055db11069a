//! The operator's commands at changes of role: no shell, one at a time, with a time limit.

use std::process::Stdio;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// A hook that runs longer is killed: the next change of role must not wait for it for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// Changes of role that may wait for a slow hook; beyond that the oldest story is no longer worth telling, and the new one is
/// dropped with a warning.
const WAITING: usize = 16;

/// One run of a hook.
#[derive(Debug)]
pub(super) struct Run {
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// `KEEPCALL_*` variables.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// Runs hooks in the order in which they were asked for.
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
            warn!(hook = command.first(), "hook not run: {WAITING} runs wait already ({e})");
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
            warn!(instance, program, "hook could not be started: {e}; check the path and its mode");
            return;
        }
    };
    match tokio::time::timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if status.success() => info!(instance, program, "hook done"),
        Ok(Ok(status)) => warn!(instance, program, "hook failed: {status}"),
        Ok(Err(e)) => warn!(instance, program, "hook lost: {e}"),
        Err(_) => {
            warn!(instance, program, "hook killed: it ran longer than {LIMIT:?}");
            // The hook leads its own process group, so its children go with it.
            if let Some(pid) = child.id().and_then(|p| i32::try_from(p).ok()) {
                let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
            let _ = child.wait().await;
        }
    }
}
