//! Which end of a message the tracker identifies as the server, by transport.

use super::{addr, options};
use crate::calls::table::script::settings;
use crate::calls::table::{Table, TableSettings};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;

/// Whether the packet counts as foreign.
fn is_foreign(transport: Transport, src: &str, dst: &str) -> bool {
    let vips = vec!["10.0.0.100".parse().unwrap(), "10.0.0.101".parse().unwrap()];
    let mut table = Table::new(TableSettings { vips, sip_ports: vec![5060], ..settings() });
    let payload = options("TLS");
    table.handle_packet(&Packet { src: addr(src), dst: addr(dst), transport, payload: &payload }, 0, Time::ZERO);
    table.counters().foreign == 1
}

#[test]
fn tls_and_websocket_on_any_port_the_others_on_configured_ones() {
    for transport in [Transport::Tls, Transport::Ws] {
        for (src, dst, foreign) in [
            ("10.0.0.1:40001", "10.0.0.100:5061", false),
            ("10.0.0.101:443", "10.0.0.1:40001", false),
            // A connection that the server opened.
            ("10.0.0.1:5061", "10.0.0.100:49152", false),
            ("10.0.0.1:5061", "10.0.0.2:5061", true),
            // The server to itself.
            ("10.0.0.100:49152", "10.0.0.101:5061", true),
        ] {
            assert_eq!(is_foreign(transport, src, dst), foreign, "{transport:?} {src} {dst}");
        }
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        assert!(is_foreign(transport, "10.0.0.1:40001", "10.0.0.100:5061"));
        assert!(!is_foreign(transport, "10.0.0.1:40001", "10.0.0.100:5060"));
    }
}
