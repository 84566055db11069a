//! The control socket's side of the agent: a part that may fail.

use super::part::{Beats, Parts, Turn, Work};
use super::requests::Answers;
use crate::control::server::Socket;
use std::sync::Arc;

/// Serves the socket until the process ends.
pub(super) fn start(socket: Arc<Socket>, answers: Answers, parts: &Parts, beats: Beats) -> tokio::task::JoinHandle<()> {
    let work = move |turn: Turn| -> Work {
        let (socket, answers) = (Arc::clone(&socket), answers.clone());
        Box::pin(async move {
            let (_serving, mut requests) =
                socket.serve().map_err(|e| format!("cannot serve the control socket: {e}"))?;
            loop {
                // Another run has already answered in place of a run that was given up.
                if turn.licence.act(|| ()).is_none() {
                    return Ok(());
                }
                #[cfg(feature = "faults")]
                crate::faults::point("control");
                #[cfg(feature = "faults")]
                let tick = tokio::time::sleep(std::time::Duration::from_millis(100));
                #[cfg(not(feature = "faults"))]
                let tick = std::future::pending::<()>();
                tokio::select! {
                    asked = requests.recv() => match asked {
                        Some((request, reply)) => answers.clone().answer(request, reply),
                        None => return Err("the control socket is no longer served".to_owned()),
                    },
                    () = tick => {}
                }
            }
        })
    };
    parts.supervise("command line", beats, work, || {})
}
