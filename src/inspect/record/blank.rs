//! A leg about which nothing is known yet, except where its messages went.

use super::super::report::{Hold, Leg, Side, State};
use crate::sip::Transport;
use std::net::SocketAddr;

impl Leg {
    /// The leg between these addresses, everything else empty.
    pub(super) const fn blank(
        direction: Side,
        transport: Transport,
        local_addr: SocketAddr,
        remote_addr: SocketAddr,
    ) -> Self {
        Self {
            call_id: String::new(),
            direction,
            through_server: false,
            state: State::Calling,
            partial: false,
            missing: Vec::new(),
            local: String::new(),
            remote: String::new(),
            local_tag: String::new(),
            remote_tag: String::new(),
            request_uri: None,
            transport,
            local_addr,
            remote_addr,
            also_seen: Vec::new(),
            started_ms: 0,
            ringing_ms: None,
            answered_ms: None,
            ended_ms: None,
            code: None,
            reason: None,
            retried: Vec::new(),
            ended_by: None,
            ended_how: None,
            local_cseq: None,
            remote_cseq: None,
            route_set: Vec::new(),
            remote_target: String::new(),
            local_target: String::new(),
            session_timer: None,
            hold: Hold::None,
            allow: String::new(),
            supported: String::new(),
            user_agent: None,
            messages: 0,
            reinvites: 0,
            refers: Vec::new(),
            replaces: None,
            media: Vec::new(),
        }
    }
}
