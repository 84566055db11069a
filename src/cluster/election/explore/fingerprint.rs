//! The part of an election's state that decides its future. The patterns name every field, so that a new one cannot be
//! forgotten: two states that differ in it would count as one, and the exploration would skip the difference.

use super::asking::{InFlight, Reading, Requests};
use super::lead::{Handover, Leading};
use super::learning::{EtcdState, LastRead, LostRecord};
use super::messages::{Peer, Promises};
use super::rights::{Right, Won};
use super::wishes::Wishes;
use super::{Election, NodeState, POLL};
use crate::cluster::election::explore::canon::Canon;
use crate::cluster::election::types::Cause;
use crate::cluster::record::{Recorded, View};
use std::time::Duration;

impl Election {
    pub(in crate::cluster::election) fn fingerprint(&self, c: &mut Canon) {
        let Self {
            s,
            node,
            // The explored settings never hold a change down and never count one as quick.
            etcd: EtcdState { view, record, revision, unreadable, last_read, gone, epoch_since: _ },
            lost: LostRecord { record: lost, since: lost_since, held: held_at_loss, unseen },
            restored,
            requests,
            peers,
            // Derived from record and view.
            others: _,
            promises: Promises { last_ack, silence, known_terms, top_epoch },
            right: Right { held, inherited, won },
            leading: Leading { since: lead_since, sent, beat, next_beat, better_since },
            handover: Handover { claim_at, claimed, released, go_ok, gone_epoch },
            wishes: Wishes { switch, forget, forgot, stopping, parking },
            actions,
            wake,
            // Each input sets it.
            now: _,
            // Only triggers a refresh of the status.
            last_role: _,
        } = self;
        // Explored nodes always have everything they need, and of the life of a lease only its seconds count.
        let NodeState { lease, lease_life: _, fit, fit_known, priority, ready: _, started } = node;
        let Requests {
            ticket,
            // Only makes the next ticket unique.
            tickets: _,
            doubt,
            maybe,
            inflight,
            reading,
            want_read,
            read_not_before,
            propose_not_before,
            next_poll,
            // Only makes the next request unique.
            count: _,
        } = requests;
        assert!(actions.is_empty(), "a state is looked at when its actions are out");
        assert!(restored.is_none(), "etcd stays what it is in the exploration");
        c.name(forget.as_deref());
        c.name(forgot.as_deref());
        c.number(*priority);
        // The terms may change: a promise that is over by the present terms may not be over by the next.
        let (hold, long, past) = (super::super::explore::LONGEST, super::super::explore::LONGEST_BOUND, Duration::ZERO);
        c.terms(Some(s.reported.terms));
        c.terms(*known_terms);
        c.number(s.vips.len());
        c.flags(&[view.is_some(), unreadable.is_some(), *doubt, *want_read, *fit, *fit_known, *stopping, *parking]);
        if let Some(v) = view {
            // Its ticket was compared on arrival, and counts as lost in the next view only if it was there; its record is
            // below.
            let View { revision, record: recorded, alive, nodes, runs, ticket: kept, rewritten: _, paused } = v;
            c.revision(*revision);
            c.maybe_epoch(alive.map(|a| a.epoch));
            c.lease(alive.map(|a| a.lease));
            c.names(nodes);
            runs.values().for_each(|r| c.revision(*r));
            c.flags(&[paused.is_some(), kept.is_some(), matches!(recorded, Recorded::Missing)]);
        }
        c.record(record.as_deref());
        c.record(lost.as_deref());
        if record.is_none() {
            c.flags(&[*unseen, *held_at_loss]);
            c.time(*lost_since, self.lost_patience());
        }
        c.revision(*revision);
        c.epoch(*top_epoch);
        c.lease(lease.map(|l| l.id));
        c.maybe_time(lease.map(|l| l.until), past);
        c.number(node.lease_seconds().as_secs());
        // A vouch counts only a read under the present lease; a first election and a solo right count any read.
        let present = |r: &LastRead| r.lease.is_some() && r.lease == lease.map(|l| l.id);
        c.flags(&[last_read.as_ref().is_some_and(present)]);
        c.maybe_time(last_read.map(|r| r.sent), crate::cluster::election::machine::FRESH + node.lease_seconds());
        c.time(*last_ack, long);
        if record.is_none() || c.deletable {
            c.time(*silence, long + s.heartbeat * crate::cluster::election::machine::follow::MISSED_BEATS);
        }
        for (name, p) in peers {
            let Peer { acked, vouched, fit, priority, heard, reported } = p;
            c.name(Some(name));
            c.maybe_time(*acked, hold);
            c.maybe_time(*vouched, hold);
            c.flags(&[*fit]);
            // A master pauses if it heard no node for a hold.
            c.maybe_time(*heard, hold);
            c.number(*priority);
            c.terms(reported.map(|t| t.terms));
            c.number(reported.map_or(0, |t| t.vips));
        }
        // An ack of a heartbeat older than `hold` gives no right.
        let now = c.now;
        for (n, at) in sent.iter().filter(|s| s.1 + hold > now) {
            c.number(beat - n);
            c.time(*at, hold);
        }
        // The pause counts two holds from when a heartbeat was due.
        c.time(*next_beat, hold * 2);
        c.ticket(ticket.as_deref());
        c.record(maybe.as_deref());
        c.record(inflight.as_ref().map(|InFlight { id: _, record }| &**record));
        c.flags(&[reading.is_some()]);
        if let Some(Reading { id: _, lease, ticket, sent }) = reading {
            c.lease(*lease);
            c.ticket(ticket.as_deref());
            c.time(*sent, crate::cluster::election::machine::FRESH);
        }
        for t in [read_not_before, propose_not_before] {
            c.time(*t, past);
        }
        c.time((*next_poll).min(c.now + POLL), past);
        c.maybe_time(*gone, long);
        c.time(*lead_since, hold);
        c.maybe_time(*claim_at, crate::cluster::election::machine::follow::CLAIM_PATIENCE);
        for e in [claimed, released, go_ok, gone_epoch] {
            c.maybe_epoch(*e);
        }
        // Node and cause are only reported, but the counts of reached cases must be right.
        c.maybe_epoch(won.as_ref().map(|Won { epoch, .. }| *epoch));
        c.number(won.as_ref().map_or(0, |w| match w.cause {
            Cause::First => 1,
            Cause::Fast => 2,
            Cause::Slow => 3,
            Cause::Handover { .. } => 4,
            Cause::Resumed | Cause::Restarted => 5,
        }));
        c.maybe_epoch(held.map(|h| h.epoch));
        c.maybe_time(held.map(|h| h.until), past);
        c.flags(&[held.is_some_and(|h| h.dropping)]);
        c.maybe_epoch(inherited.map(|i| i.epoch));
        c.maybe_time(inherited.map(|i| i.until), past);
        c.maybe_time(better_since.as_ref().map(|b| b.1), s.preempt_delay);
        c.name(better_since.as_ref().map(|b| b.0.as_str()));
        c.flags(&[switch.is_some()]);
        c.name(switch.as_ref().and_then(|s| s.as_deref()));
        if !fit {
            c.time(*started, Duration::from_secs(5));
        }
        c.time(*wake, past);
    }
}
