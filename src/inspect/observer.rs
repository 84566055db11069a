//! Follows every leg in a file: feeds each hop to the table of the server it is viewed from, and records what messages
//! and table say. Pure.

mod matching;

use super::prospect;
use super::record::{Learnt, Record};
use super::report::{LegDirection, Recovery};
use super::rtp::Streams;
use super::survey::{Party, Roles};
use super::{InspectSettings, ms};
use crate::calls::model::{Call, CallEvent, Pairing};
use crate::calls::table::{PAIRED, Table, TableSettings};
use crate::calls::tracker::{Counters, LegEvent, LegId};
use crate::recovery::permitted::Ground;
use crate::sip::advertised::Advertised;
use crate::sip::body::{self, description};
use crate::sip::message::{Message, Method};
use crate::sip::sdp::Sdp;
use crate::time::Time;
use crate::wire::Packet;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most legs in one report; further legs are only counted. Nobody reads a longer report, and each leg takes some
/// kilobytes.
pub(super) const MAX_LEGS: usize = 100_000;
/// Most legs kept apart under one Call-ID.
const MAX_SAME: usize = 256;
/// Interval at which tables without traffic get their time-outs.
const SWEEP: Duration = Duration::from_secs(1);

/// One server, with all that is known of its calls.
pub(super) struct View {
    table: Table,
    pub(super) main: bool,
    ground: Ground,
    by_call: HashMap<u64, SmallVec<[u32; 2]>>,
    by_leg: HashMap<LegId, u32>,
    stored: HashMap<String, usize>,
}

/// A call that a table put.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: String,
    pub(super) records: SmallVec<[u32; 2]>,
    pub(super) pairing: Option<Pairing>,
    pub(super) confidence: Option<u8>,
    pub(super) recovery: Recovery,
    /// The latest version of the call, until `judge` takes it.
    last: Option<Box<Call>>,
    pub(super) emergency: bool,
    pub(super) up: bool,
    /// The call turned out to be part of another.
    pub(super) merged: bool,
    pub(super) main: bool,
}

/// Everything learnt from a file.
pub(super) struct Observer {
    pub(super) roles: Roles,
    settings: InspectSettings,
    pub(super) views: Vec<View>,
    of_party: HashMap<(bool, Party), usize>,
    /// The records of each Call-ID, from whatever viewpoint.
    by_call: HashMap<u64, SmallVec<[u32; 2]>>,
    pub(super) records: Vec<Record>,
    pub(super) stored: Vec<Stored>,
    pub(super) streams: Streams,
    pub(super) left_out: u64,
    foreign: u64,
    hasher: RandomState,
    swept: Time,
}

/// A message and its place.
#[derive(Clone, Copy)]
struct Sighting<'a> {
    m: &'a Message<'a>,
    p: &'a Packet<'a>,
    view: usize,
    out: bool,
    cut: bool,
    now: Time,
}

impl Observer {
    pub(super) fn new(roles: Roles, settings: InspectSettings) -> Self {
        Self {
            roles,
            settings,
            views: Vec::new(),
            of_party: HashMap::new(),
            by_call: HashMap::new(),
            records: Vec::new(),
            stored: Vec::new(),
            streams: Streams::default(),
            left_out: 0,
            foreign: 0,
            hasher: RandomState::new(),
            swept: Time::ZERO,
        }
    }

    /// Sum of the trackers' counters.
    pub(super) fn counters(&self) -> Counters {
        let mut sum = Counters { packets: self.foreign, foreign: self.foreign, ..Counters::default() };
        for c in self.views.iter().map(|v| v.table.counters()) {
            sum.packets += c.packets;
            sum.foreign += c.foreign;
            sum.keep_alives += c.keep_alives;
            sum.not_sip += c.not_sip;
            sum.malformed += c.malformed;
            sum.unknown_dialog += c.unknown_dialog;
            sum.not_learnt += c.not_learnt;
            sum.swept += c.swept;
            sum.confirmed += c.confirmed;
        }
        sum
    }

    pub(super) fn handle_sip(&mut self, p: &Packet<'_>, cut: bool, now: Time) {
        self.sweep(now);
        let Some((rank, party, out)) = self.roles.viewpoint(p.src, p.dst) else {
            self.foreign += 1;
            return;
        };
        let view = self.view(rank, party);
        self.advance(view, now);
        let v = &mut self.views[view];
        v.table.handle_packet(p, ms(now), now);
        match Message::parse(p.payload) {
            Ok(m) => {
                let seen = Sighting { m: &m, p, view, out, cut, now };
                self.legs(view, Some(seen), now);
                self.note(seen);
            }
            Err(_) => self.legs(view, None, now),
        }
        self.calls(view);
    }

    pub(super) fn handle_datagram(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8], now: Time) {
        let Some(sample) = self.streams.handle(src, dst, payload, now) else { return };
        let Some(view) = self.records.get(sample.record as usize).map(|r| r.view as usize) else { return };
        if let Some(v) = self.views.get_mut(view) {
            v.table.handle_rtp(src, dst, payload, now);
            self.legs(view, None, now);
            self.calls(view);
        }
    }

    /// End of file: time runs on until single legs have settled, and legs that are still up go into their records.
    pub(super) fn finish(&mut self, end: Time) {
        for view in 0..self.views.len() {
            self.views[view].table.handle_timeout(end);
            self.legs(view, None, end);
            self.calls(view);
            let open: Vec<(LegId, u32)> = self.views[view].by_leg.iter().map(|(id, r)| (*id, *r)).collect();
            for (id, record) in open {
                self.learn(view, id, record);
            }
            let v = &self.views[view];
            for s in v.stored.values() {
                if let Some(s) = self.stored.get_mut(*s) {
                    judge(s, &v.ground, &self.records);
                }
            }
        }
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        for view in 0..self.views.len() {
            self.advance(view, now);
        }
    }

    fn advance(&mut self, view: usize, now: Time) {
        if self.views[view].table.next_deadline().is_some_and(|d| d <= now) {
            self.views[view].table.handle_timeout(now);
            self.legs(view, None, now);
            self.calls(view);
        }
    }

    fn view(&mut self, rank: usize, party: Party) -> usize {
        let main = rank == 0;
        // The server of the report may have several addresses.
        let key = if main { (true, Party { ip: IpAddr::from([0; 4]), port: None }) } else { (false, party) };
        if let Some(view) = self.of_party.get(&key) {
            return *view;
        }
        let addresses = if main { self.roles.vips.clone() } else { vec![party.ip] };
        let s = &self.settings;
        let advertised = Advertised::new(&s.advertised);
        let table = Table::for_report(TableSettings {
            instance: String::new(),
            node: String::new(),
            vips: addresses.clone(),
            sip_ports: self.roles.ports_of(rank, party),
            pair_header: s.pair_header.clone(),
            emergency: s.emergency.clone(),
            advertised: advertised.clone(),
            max_calls: if s.max_calls == 0 { MAX_LEGS } else { s.max_calls },
        });
        self.views.push(View {
            table,
            main,
            ground: Ground { advertised, ..Ground::of(&addresses) },
            by_call: HashMap::new(),
            by_leg: HashMap::new(),
            stored: HashMap::new(),
        });
        self.of_party.insert(key, self.views.len() - 1);
        self.views.len() - 1
    }

    /// Handles the table's leg events; `seen` is the message that the table has just handled.
    fn legs(&mut self, view: usize, seen: Option<Sighting<'_>>, now: Time) {
        while let Some(event) = self.views[view].table.poll_leg() {
            match event {
                LegEvent::Started(id) => {
                    if let Some(seen) = seen {
                        self.started(id, seen);
                    }
                }
                LegEvent::Confirmed(_) | LegEvent::Changed(_) => {}
                LegEvent::Ended(id, reason) => {
                    let Some(record) = self.views[view].by_leg.get(&id).copied() else { continue };
                    self.learn(view, id, record);
                    self.views[view].by_leg.remove(&id);
                    let at = seen.is_none().then_some(now);
                    if self.records.get_mut(record as usize).is_some_and(|r| r.given_up(reason, at)) {
                        self.streams.over(record, now);
                    }
                }
            }
        }
    }

    /// Copies the table's view of a leg into its record.
    fn learn(&mut self, view: usize, id: LegId, record: u32) {
        if let (Some(t), Some(r)) = (self.views[view].table.tracked(id), self.records.get_mut(record as usize)) {
            r.emergency |= t.emergency;
            r.learn(Learnt::new(&t.leg));
        }
    }

    /// The table has a new leg: from an INVITE, from another fork's answer, or from the middle of a dialog.
    fn started(&mut self, id: LegId, seen: Sighting<'_>) {
        let Sighting { m, out, view, now, .. } = seen;
        let first = m.method() == Method::Invite && m.is_request() && m.to_tag().is_none();
        let record = if first {
            self.first(seen)
        } else if let Some(known) = (!m.is_request()).then(|| self.branch(seen)).flatten() {
            Some(known)
        } else if let Some(family) = (!m.is_request()).then(|| self.family(seen)).flatten() {
            let fork = self.records[family as usize].fork(m, out, now);
            self.insert(view, fork)
        } else {
            let found = self.find(seen);
            found.or_else(|| self.insert(view, Record::new(index(view), m, seen.p, out, now)))
        };
        if let Some(record) = record {
            self.views[view].by_leg.insert(id, record);
        }
    }

    /// The record of a first INVITE: a new one, or that of the same caller's refused INVITE.
    fn first(&mut self, seen: Sighting<'_>) -> Option<u32> {
        let Sighting { m, p, out, view, now, .. } = seen;
        let side = if out { LegDirection::Outbound } else { LegDirection::Inbound };
        let peer = if out { p.dst } else { p.src };
        let from = m.from_tag().unwrap_or_default();
        let again = self.same(view, m.call_id()).into_iter().rev().find(|r| {
            let r = &self.records[*r as usize];
            r.side == side
                && r.near_tag() == from
                && r.is_refused()
                && r.cseq < m.cseq().0
                && r.remote_addr.ip() == peer.ip()
        });
        if let Some(record) = again {
            self.records[record as usize].again(m);
            return Some(record);
        }
        self.insert(view, Record::new(index(view), m, p, out, now))
    }

    fn insert(&mut self, view: usize, record: Record) -> Option<u32> {
        let hash = self.hasher.hash_one(&*record.call_id);
        let ids = self.views[view].by_call.entry(hash).or_default();
        if self.records.len() >= MAX_LEGS || ids.len() >= MAX_SAME {
            self.left_out += 1;
            return None;
        }
        let id = index(self.records.len());
        ids.push(id);
        let all = self.by_call.entry(hash).or_default();
        if all.len() < MAX_SAME {
            all.push(id);
        }
        self.records.push(record);
        Some(id)
    }

    /// Notes a message in the record of its leg.
    fn note(&mut self, seen: Sighting<'_>) {
        let Sighting { m, p, view, out, cut, now } = seen;
        let method = m.method();
        let first = method == Method::Invite && m.is_request() && m.to_tag().is_none();
        let mut found = self.find(seen);
        if found.is_none() && first {
            // The table did not take it.
            found = self.first(seen);
        }
        if found.is_none() && begins_late(m) {
            found = self.insert(view, Record::new(index(view), m, p, out, now));
        }
        let Some(id) = found else {
            if method == Method::Ack {
                self.passed_by(m, p);
            }
            return;
        };
        // A refusal ends the whole transaction, with every early dialog (RFC 3261 section 13.2.2.3). So does CANCEL.
        let whole = method == Method::Cancel || method == Method::Invite && m.code().is_some_and(|c| c >= 300);
        if whole {
            let branch = m.branch().unwrap_or_default();
            for other in self.same(view, m.call_id()) {
                let r = &mut self.records[other as usize];
                if other != id && r.is_inviting() && *r.branch == *branch {
                    r.see(m, p, out, cut, now);
                }
            }
        }
        let r = &mut self.records[id as usize];
        r.see(m, p, out, cut, now);
        let over = r.is_over();
        if over {
            self.streams.over(id, now);
            return;
        }
        if let body::Description::Sdp(b) = description(m)
            && let Ok(sdp) = Sdp::parse(b)
        {
            let (ground, server) = (&self.views[view].ground, if out { p.src.ip() } else { p.dst.ip() });
            let place = |ip| ground.vip_behind(ip, server).filter(|_| out).unwrap_or(ip);
            self.streams.described((id, out), &sdp, place, now);
        }
        match (method, m.code()) {
            // The answer is in a 2xx, or in the ACK if that had the offer (RFC 3264, RFC 3261 section 13.2.1).
            (Method::Invite | Method::Update, Some(200..=299)) | (Method::Ack, None) => self.streams.agreed(id, now),
            (Method::Invite | Method::Update, Some(300..)) => self.streams.refused(id),
            _ => {}
        }
    }

    /// The ACK of a 2xx that goes from phone to phone: the dialog goes on without the server, since it did not ask to
    /// stay in its route (RFC 3261 section 16.6, item 4).
    fn passed_by(&mut self, m: &Message<'_>, p: &Packet<'_>) {
        let (Some(from), Some(to)) = (m.from_tag(), m.to_tag()) else { return };
        let all = self.by_call.get(&self.hasher.hash_one(m.call_id()));
        let of = |id: &u32| &self.records[*id as usize];
        let same = |r: &Record| *r.call_id == *m.call_id() && r.has_tags(from, to) && r.answered.is_some();
        let hops: SmallVec<[u32; 4]> = all.into_iter().flatten().copied().filter(|id| same(of(id))).collect();
        let is_phone = |at: SocketAddr| hops.iter().any(|id| of(id).remote_addr.ip() == at.ip());
        if is_phone(p.src) && is_phone(p.dst) {
            for id in hops {
                self.records[id as usize].passed_by = true;
            }
        }
    }

    /// Handles the table's call events.
    fn calls(&mut self, view: usize) {
        while let Some(event) = self.views[view].table.poll_event() {
            match event {
                CallEvent::Put(call) => self.put(view, call),
                CallEvent::Delete { id, reason } => {
                    let v = &self.views[view];
                    if let Some(s) = v.stored.get(&id).and_then(|s| self.stored.get_mut(*s)) {
                        s.up = false;
                        s.merged |= reason == PAIRED;
                        judge(s, &v.ground, &self.records);
                    }
                }
            }
        }
    }

    fn put(&mut self, view: usize, call: Box<Call>) {
        let records = call
            .legs
            .iter()
            .filter_map(|leg| {
                let same = self.same(view, &leg.call_id.0);
                same.into_iter().rev().find(|r| {
                    let r = &self.records[*r as usize];
                    *r.local_tag == *leg.local_tag.0
                        && *r.remote_tag == *leg.remote_tag.0
                        && (call.legs.len() < 2 || r.remote_addr == leg.remote_addr)
                })
            })
            .collect();
        let v = &mut self.views[view];
        let stored = Stored {
            id: call.id.clone(),
            records,
            pairing: call.pairing,
            confidence: call.confidence,
            recovery: Recovery::no(""),
            emergency: call.emergency,
            up: true,
            merged: false,
            main: v.main,
            last: None,
        };
        let known = v.stored.get(&call.id).copied();
        let stored = Stored { last: Some(call), ..stored };
        if let Some(old) = known.and_then(|s| self.stored.get_mut(s)) {
            *old = stored;
        } else if self.stored.len() < MAX_LEGS {
            v.stored.insert(stored.id.clone(), self.stored.len());
            self.stored.push(stored);
        }
    }
}

/// Judges the latest version of a call, and only once: judging costs more than all other work on the call.
fn judge(s: &mut Stored, ground: &Ground, records: &[Record]) {
    if let Some(call) = s.last.take() {
        let passed_by = s.records.iter().any(|r| records.get(*r as usize).is_some_and(|r| r.passed_by));
        s.recovery = prospect::of_takeover(&call, ground, passed_by);
    }
}

/// Whether a message of an unknown dialog proves a call. ACK may belong to a refusal; NOTIFY and the like mostly belong
/// to subscriptions.
fn begins_late(m: &Message<'_>) -> bool {
    let tagged = m.to_tag().is_some() && m.from_tag().is_some();
    match (m.method(), m.code()) {
        (Method::Invite | Method::Bye | Method::Update | Method::Info | Method::Prack, None) => tagged,
        (Method::Invite, Some(101..)) | (Method::Bye | Method::Update, Some(200..=299)) => tagged,
        _ => false,
    }
}

fn index(n: usize) -> u32 {
    // Bounded by MAX_LEGS and by the parties of a survey.
    u32::try_from(n).unwrap_or(u32::MAX)
}
