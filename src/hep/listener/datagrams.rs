//! HEP over UDP, with a count of the kernel's drops.

use super::{PAUSE, Shared};
use crate::hep::intake::ReportedMessage;
use crate::os::datagram::receive;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;

/// Largest UDP payload.
const DATAGRAM: usize = 65_535;

pub(super) async fn read(socket: UdpSocket, shared: Arc<Shared>, tx: mpsc::Sender<ReportedMessage>) {
    let mut buffer = vec![0; DATAGRAM];
    let mut seen = 0_u32;
    loop {
        let datagram = match socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)).await {
            Ok(datagram) => datagram,
            Err(e) => {
                debug!(instance = shared.instance, "cannot receive HEP, trying again: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        #[cfg(feature = "faults")]
        crate::faults::point("hep");
        if let Some(dropped) = datagram.dropped {
            // The kernel's count wraps around at 2^32.
            shared.intake().counters.dropped += u64::from(dropped.wrapping_sub(seen));
            seen = dropped;
        }
        let (report, _) = shared.take(&buffer[..datagram.length], datagram.source.ip());
        if let Some(report) = report
            && tx.send(report).await.is_err()
        {
            return;
        }
    }
}
