//! Groups legs into calls, as people count them: by pairing, or by Call-ID. Pure.

mod copies;
mod dialogs;
mod notes;

use super::observer::{Observer, Stored};
use super::record::{Record, text};
use super::report::{By, Call, End, Leg, LegDirection, Media, Recovery, Rtp, State};
use super::rtp::{Place, join};
use crate::time::Time;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Hexadecimal digits of a call's name: unique among the calls of a file, and short enough to type.
const ID_DIGITS: usize = 12;
/// Longest gap from the caller's INVITE to the server's own: a dial plan takes milliseconds, a menu before it seconds.
const SETUP: Duration = Duration::from_secs(30);
/// Most unanswered legs compared between the same two parties.
const MAX_ALIKE: usize = 200;

/// Groups records into calls.
struct Groups(Vec<u32>);

impl Groups {
    fn root(&mut self, mut n: u32) -> u32 {
        while self.0[n as usize] != n {
            let up = self.0[self.0[n as usize] as usize];
            self.0[n as usize] = up;
            n = up;
        }
        n
    }

    /// The earlier record names the group.
    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}

/// All calls of a file, in order of their start. `end` is the time of the last packet.
pub(super) fn calls(mut o: Observer, end: Time) -> Vec<Call> {
    let mut rtp: HashMap<u32, Vec<(Place, Rtp)>> = HashMap::new();
    for (place, found) in std::mem::take(&mut o.streams).found() {
        rtp.entry(place.record).or_default().push((place, found));
    }
    copies::mark(&mut o);
    copies::lose_forks(&mut o.records);
    dialogs::join(&mut o);
    let n = u32::try_from(o.records.len()).unwrap_or(u32::MAX);
    let mut groups = Groups((0..n).collect());
    by_call_id(&o.records, &mut groups);
    for s in &o.stored {
        if let [a, b] = s.records.as_slice() {
            groups.join(*a, *b);
        }
    }
    let paired = pair_unanswered(&o.records, &o.stored);
    for (a, b) in &paired {
        groups.join(*a, *b);
    }
    let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for r in (0..n).filter(|r| o.records[*r as usize].copy_of.is_none()) {
        members.entry(groups.root(r)).or_default().push(r);
    }
    let mut stored: HashMap<u32, Vec<&Stored>> = HashMap::new();
    for s in &o.stored {
        if let Some(first) = s.records.first() {
            stored.entry(groups.root(*first)).or_default().push(s);
        }
    }
    let none = Vec::new();
    let mut calls: Vec<Call> = members
        .iter()
        .map(|(root, records)| call(&o, records, stored.get(root).unwrap_or(&none), &mut rtp, end))
        .collect();
    calls.sort_by(|a, b| (a.started_ms, &a.id).cmp(&(b.started_ms, &b.id)));
    calls
}

/// Hops of one dialog, and forks of one INVITE, share the Call-ID. A Call-ID reused for another call (a device that
/// restarts its numbering, a test tool) comes with another tag, after the first call has ended.
fn by_call_id(records: &[Record], groups: &mut Groups) {
    let mut by_id: HashMap<&[u8], Vec<u32>> = HashMap::new();
    for (n, r) in (0u32..).zip(records) {
        let others = by_id.entry(&r.call_id).or_default();
        let tags = |r: &Record| [r.local_tag.clone(), r.remote_tag.clone()];
        let fits = |o: &Record| {
            let shares = tags(o).iter().any(|t| !t.is_empty() && tags(r).contains(t));
            shares || o.ended.is_none_or(|at| at >= r.started)
        };
        if let Some(other) = others.iter().rev().find(|o| fits(&records[**o as usize])) {
            groups.join(*other, n);
        }
        others.push(n);
    }
}

/// The two legs of an unanswered B2BUA call. No table pairs them, since unanswered calls are not kept. The server's
/// INVITE went out while the caller's was open, caller and callee agree, and no other leg fits as well.
fn pair_unanswered(records: &[Record], stored: &[Stored]) -> Vec<(u32, u32)> {
    let mut alike: HashMap<(u32, &str, &str), [Vec<u32>; 2]> = HashMap::new();
    let known: HashSet<u32> =
        stored.iter().filter(|s| s.records.len() > 1).flat_map(|s| s.records.iter().copied()).collect();
    for (n, r) in (0u32..).zip(records) {
        if r.side == LegDirection::Unknown || r.copy_of.is_some() || known.contains(&n) {
            continue;
        }
        if let (Some(from), Some(to)) = (&r.from.user, &r.to.user) {
            alike.entry((r.view, from, to)).or_default()[usize::from(r.side == LegDirection::Outbound)].push(n);
        }
    }
    let mut pairs = Vec::new();
    for [inbound, outbound] in alike.values() {
        // Among many calls between the same two parties, a pairing would be a guess, and a costly one.
        if inbound.len() > MAX_ALIKE || outbound.len() > MAX_ALIKE {
            continue;
        }
        let fits = |i: &u32, o: &u32| {
            let (i, o) = (&records[*i as usize], &records[*o as usize]);
            let open = o.started >= i.started && i.ended.is_none_or(|at| o.started <= at);
            open && o.started.since(i.started) <= SETUP
                && i.call_id != o.call_id
                && i.answered.is_none()
                && o.answered.is_none()
        };
        for i in inbound {
            let mut partners = outbound.iter().filter(|o| fits(i, o));
            if let (Some(o), None) = (partners.next(), partners.next())
                && inbound.iter().filter(|i| fits(i, o)).count() == 1
            {
                pairs.push((*i, *o));
            }
        }
    }
    pairs.sort_unstable();
    pairs
}

fn call(
    o: &Observer,
    records: &[u32],
    stored: &[&Stored],
    rtp: &mut HashMap<u32, Vec<(Place, Rtp)>>,
    end: Time,
) -> Call {
    let of = |r: &u32| &o.records[*r as usize];
    let through = |r: &Record| o.views[r.view as usize].main;
    let legs: Vec<Leg> = records
        .iter()
        .map(|n| {
            let mut leg = of(n).told(through(of(n)));
            measure(&mut leg.media, rtp.remove(n).unwrap_or_default());
            leg
        })
        .collect();
    // The caller's view: the first hop, which was captured first.
    let main = records
        .iter()
        .find(|r| of(r).side != LegDirection::Unknown)
        .or(records.first())
        .map_or_else(|| &o.records[0], of);
    let answered = records.iter().filter_map(|r| of(r).answered).min();
    let states: Vec<State> = legs.iter().map(|l| l.state).collect();
    let state = if states.contains(&State::Up) {
        State::Up
    } else if states.contains(&State::Ended) {
        State::Ended
    } else {
        main.state()
    };
    let over = !matches!(state, State::Up | State::Calling | State::Ringing);
    let started = records.iter().map(|r| of(r).started).min().unwrap_or(Time::ZERO);
    // On a proxied call, BYE may end two legs at once: its sender is the remote side of one of them.
    let order = |r: &&u32| (of(r).ended, of(r).ended_by != Some(End::Remote));
    let first_end = records.iter().filter(|r| of(r).ended.is_some()).min_by_key(order).map(of);
    let ended = if state == State::Ended {
        first_end.filter(|_| over).and_then(|r| r.ended)
    } else {
        main.ended.filter(|_| over)
    };
    let ender = if state == State::Ended { first_end } else { Some(main) };
    let ended_by = ender.filter(|_| over).and_then(|r| by(r, main, records.len() == 1));
    let partial = main.is_partial();
    let since = answered.or(partial.then_some(started));
    let duration = since.filter(|_| matches!(state, State::Up | State::Ended)).map(|at| ended.unwrap_or(end).since(at));
    // The final version of the whole call: the most legs, then the newest. While the call is up, what is left of it
    // counts: a pair of which one leg has ended is none.
    let up = state == State::Up;
    let kept = stored.iter().filter(|s| !s.merged).max_by_key(|s| (s.main, up && s.up, s.records.len(), s.up));
    let through_server = records.iter().any(|r| through(of(r)));
    let mut from = main.from.clone();
    let mut to = main.to.clone();
    if to.user.is_none()
        && let Some(uri) = &main.request_uri
    {
        to.user = crate::sip::uri::user(uri.as_bytes()).map(text);
    }
    from.address = Some(caller_end(main));
    let last = records.iter().rev().find(|r| of(r).answered.is_some()).or(records.last()).map_or(main, of);
    to.address = Some(callee_end(last));
    let mut call_ids: Vec<String> = Vec::new();
    for l in &legs {
        if !call_ids.contains(&l.call_id) {
            call_ids.push(l.call_id.clone());
        }
    }
    let ms = |t: Option<Time>| t.map(super::ms);
    let mut call = Call {
        id: name(main),
        state,
        partial,
        through_server,
        from,
        to,
        emergency: records.iter().any(|r| of(r).emergency) || stored.iter().any(|s| s.emergency),
        started_ms: super::ms(started),
        ringing_ms: ms(records.iter().filter_map(|r| of(r).ringing).min()),
        answered_ms: ms(answered),
        ended_ms: ms(ended),
        duration_ms: duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        code: main.code.or_else(|| legs.iter().find_map(|l| l.code.filter(|c| (200..300).contains(c)))),
        reason: None,
        ended_by,
        ended_how: ender.filter(|_| over).and_then(|r| r.told(false).ended_how),
        pairing: kept.and_then(|s| s.pairing),
        confidence: kept.and_then(|s| s.confidence),
        stored_id: kept.filter(|s| s.main).map(|s| s.id.clone()),
        call_ids,
        recovery: Recovery::no(""),
        notes: Vec::new(),
        legs,
    };
    call.reason = main.told(false).reason.filter(|_| main.code.is_some());
    call.recovery = recovery(o, &call, kept.copied());
    call.notes = notes::of(&call);
    if records.iter().any(|r| of(r).passed_by) {
        call.notes.push(notes::PASSED_BY.to_owned());
    }
    call
}

/// Who ended the leg `r`, in terms of the whole call, which began with `main`.
fn by(r: &Record, main: &Record, alone: bool) -> Option<By> {
    let local = r.ended_by? == End::Local;
    let caller_side = match r.side {
        LegDirection::Inbound => !local,
        LegDirection::Outbound => local,
        LegDirection::Unknown => return None,
    };
    Some(match (caller_side, std::ptr::eq(r, main)) {
        // On a call of several legs, an end from the middle comes from a server: the capture shows no sender further
        // out.
        (true, true) => By::Caller,
        (true, false) => By::Server,
        (false, _) if r.side == LegDirection::Inbound && !alone => By::Server,
        (false, _) => By::Callee,
    })
}

fn caller_end(r: &Record) -> SocketAddr {
    if r.side == LegDirection::Outbound { r.local_addr } else { r.remote_addr }
}

fn callee_end(r: &Record) -> SocketAddr {
    if r.side == LegDirection::Inbound { r.local_addr } else { r.remote_addr }
}

fn name(r: &Record) -> String {
    let mut hash = Sha256::new();
    let near = if r.side == LegDirection::Unknown {
        r.local_tag.clone().min(r.remote_tag.clone())
    } else {
        r.near_tag().into()
    };
    for part in [&r.call_id, &near] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(ID_DIGITS / 2).map(|b| format!("{b:02x}")).collect()
}

/// Assigns the captured RTP to the m-lines of a leg.
fn measure(media: &mut [Media], mut found: Vec<(Place, Rtp)>) {
    // Sorted, since a hash table has no stable order.
    found.sort_by_key(|(p, r)| (p.line, p.received, r.first_ms, r.source, r.destination));
    for (place, rtp) in found {
        if let Some(m) = media.get_mut(usize::from(place.line)) {
            join(if place.received { &mut m.received } else { &mut m.sent }, rtp);
        }
    }
    for m in media {
        for rtp in [&mut m.received, &mut m.sent].into_iter().flatten() {
            for t in &mut rtp.payload_types {
                let mut types = [&m.local, &m.remote].into_iter().flatten().flat_map(|d| &d.types);
                t.codec = types.find(|(n, _)| *n == t.number).map(|(_, c)| c.clone());
            }
        }
    }
}

/// What a takeover would do with the call.
fn recovery(o: &Observer, call: &Call, kept: Option<&Stored>) -> Recovery {
    let server = o.roles.vips.first().map_or_else(|| "the server".to_owned(), |ip| format!("the server {ip}"));
    if !call.through_server {
        return Recovery::no(format!("the call does not pass {server}"));
    }
    match call.state {
        State::Up | State::Ended => {}
        State::Calling | State::Ringing => {
            return Recovery::no("nobody has answered the call yet: keepcall recovers only answered calls");
        }
        State::Cancelled | State::Redirected | State::Failed | State::Unanswered => {
            return Recovery::no("nobody answered the call: keepcall recovers only answered calls");
        }
    }
    match kept.filter(|s| s.main) {
        Some(s) => {
            let mut r = s.recovery.clone();
            if call.legs.iter().any(|l| l.missing.iter().any(|m| m.starts_with("the capture truncated"))) {
                r.why = format!("{} (the capture truncated some messages, so this may be wrong)", r.why);
            }
            r
        }
        None if call.partial => Recovery::no(
            "a part of the call's start is not in the file, and the later messages do not show the whole dialog",
        ),
        None => Recovery::no("keepcall did not learn the dialog"),
    }
}
