//! Plans which flows enter and leave the kernel, in which order, and how many at a time. Pure: calls, the kernel's
//! state and the duration of each change go in, [`Action`]s come out.
//!
//! The kernel has one lock for all nftables changes and holds it for a whole transaction. Meanwhile the kernel lease of
//! every instance waits. So requests come into force in pieces. Each piece is one transaction that adds and removes
//! whole flows. At no time, and after no crash, does a packet meet half a flow: it takes the flow's new way, its old
//! way, or reaches the server. Flows outside the piece stay unchanged.

use super::present::Present;
use super::table::{Elements, MAX_FLOWS, mark};
use crate::calls::model::Flow;
use crate::vip::nfnl::Data;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Most flows in one piece: 100 calls with RTP and RTCP both ways.
const LARGEST: usize = 400;
/// Fewest flows in a piece, even on a slow kernel. With fewer, the transaction costs more than the flows.
const SMALLEST: usize = 16;
/// Longest time that a piece should hold the lock. The kernel lease's guard lives for 8 ms, so a renewal that waits for
/// a piece still succeeds.
const TARGET: Duration = Duration::from_millis(4);
/// Room for a piece's new flows beside the flows that they replace.
const HEADROOM: usize = 1024;
/// Most flows that can be requested.
pub(super) const MOST: usize = MAX_FLOWS - HEADROOM;
/// Most flows of one call: sixteen streams with RTP and RTCP both ways. No telephone has more.
pub(super) const MOST_OF_A_CALL: usize = 64;
/// Approximate number of elements of a flow.
const ELEMENTS: usize = 6;

/// Sender and our port.
pub(super) type Key = (SocketAddr, SocketAddr);

/// Instructions to the driver.
#[derive(Debug)]
pub(super) enum Action {
    /// Create the table with its rules if it is missing, and report the contents of its sets.
    Read,
    /// Commit this piece in one transaction.
    Commit(Piece),
}

/// One transaction. Removals come first.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Number of the set, and key.
    pub(super) strays: Vec<(usize, Data)>,
    pub(super) out: Elements,
    pub(super) put: Elements,
}

impl Piece {
    fn is_empty(&self) -> bool {
        let none = |e: &Elements| e.flows.is_empty() && e.local.is_empty();
        self.strays.is_empty() && none(&self.out) && none(&self.put)
    }
}

/// A call was refused for lack of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The table is full.
    Table,
    /// The call has too many flows.
    Call,
}

/// Priority of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Emergency,
    /// The flow in force differs from the requested one.
    Wrong,
    New,
    /// Flows of a predecessor that were not requested.
    Left,
}

/// The request for a call.
#[derive(Debug)]
struct CallRequest {
    keys: Vec<Key>,
    emergency: bool,
}

/// Keys to check for a call.
#[derive(Debug)]
struct Due {
    call: String,
    keys: BTreeSet<Key>,
}

/// Record of the piece handed out.
#[derive(Debug, Default)]
struct PieceUnderWay {
    /// Numbers freed by the piece.
    given_up: Vec<u16>,
    /// Number of flows changed by the piece.
    flows: usize,
}

/// The requested state, the state in force, and the queue of differences.
#[derive(Debug, Default)]
pub(super) struct Planner {
    calls: BTreeMap<String, CallRequest>,
    // Requested flow for each key, with its call.
    wanted: HashMap<Key, (Flow, String)>,
    // Flow for each key once the pending piece is done, with its number.
    present: HashMap<Key, (Flow, u16)>,
    // Number of present flows from our port to a phone.
    spoken: HashMap<Key, u32>,
    strays: Vec<(usize, Data)>,
    queue: BTreeMap<(Class, u64), Due>,
    places: HashMap<String, (Class, u64)>,
    next: u64,
    // Unused numbers, the latest freed at the end. A packet between the hooks when its flow is removed must not find
    // another flow's addresses.
    free: VecDeque<u16>,
    used: u32,
    tag: u8,
    // The state in force is known.
    known: bool,
    under_way: Option<PieceUnderWay>,
    // Flows in a piece. The largest size until the kernel's speed is known.
    size: Option<usize>,
    unbroken: bool,
}

impl Planner {
    /// A planner that puts all requests into a single piece.
    pub(super) fn unbroken() -> Self {
        Self { unbroken: true, ..Self::default() }
    }

    /// Requests exactly `flows` for `call`. If another call had the same key, this call takes it over, because its
    /// knowledge is newer.
    ///
    /// Without room, nothing is requested for the call: half a call is useless.
    pub(super) fn handle_set(&mut self, call: &str, flows: &[Flow], emergency: bool) -> Result<(), NoRoom> {
        let room = if flows.len() > MOST_OF_A_CALL {
            Err(NoRoom::Call)
        } else if self.wanted.len() + flows.len() > MOST + self.calls.get(call).map_or(0, |c| c.keys.len()) {
            Err(NoRoom::Table)
        } else {
            Ok(())
        };
        let flows = if room.is_ok() { flows } else { &[] };
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        for key in self.calls.remove(call).map(|c| c.keys).unwrap_or_default() {
            self.wanted.remove(&key);
            touched.insert(key);
        }
        let mut keys = Vec::new();
        for flow in flows {
            let key = (flow.from, flow.at);
            if let Some((_, owner)) = self.wanted.insert(key, (*flow, call.to_owned()))
                && owner != call
                && let Some(theirs) = self.calls.get_mut(&owner)
            {
                theirs.keys.retain(|k| *k != key);
                if theirs.keys.is_empty() {
                    self.calls.remove(&owner);
                }
            }
            if !keys.contains(&key) {
                keys.push(key);
            }
            touched.insert(key);
        }
        let emergency = emergency && !keys.is_empty();
        if !keys.is_empty() {
            self.calls.insert(call.to_owned(), CallRequest { keys, emergency });
        }
        let class = if touched.iter().any(|key| self.present.contains_key(key)) { Class::Wrong } else { Class::New };
        self.enqueue(call, touched, if emergency { Class::Emergency } else { class });
        room
    }

    /// Sets the kernel's complete state.
    pub(super) fn handle_present(&mut self, present: Present, tag: u8) {
        self.handle_unknown();
        (self.known, self.tag, self.strays) = (true, tag, present.strays);
        for (flow, slot) in present.flows {
            self.present.insert((flow.from, flow.at), (flow, slot));
            *self.spoken.entry((flow.source, flow.to)).or_default() += 1;
        }
        let taken: BTreeSet<u16> = self.present.values().map(|(_, slot)| *slot).collect();
        self.used = taken.last().map_or(0, |last| u32::from(*last) + 1);
        self.free = (0..=u16::MAX)
            .take_while(|slot| u32::from(*slot) < self.used)
            .filter(|slot| !taken.contains(slot))
            .collect();
        // Keep the order of the requests, as far as it is known.
        let mut waiting: Vec<_> =
            std::mem::take(&mut self.queue).into_iter().map(|((_, number), due)| (number, due.call)).collect();
        waiting.sort_unstable();
        self.places.clear();
        let first: Vec<String> = waiting.into_iter().map(|(_, call)| call).collect();
        let rest: Vec<String> = self.calls.keys().cloned().collect();
        for call in first.iter().chain(&rest) {
            let Some(wanted) = self.calls.get(call) else { continue };
            let (keys, emergency): (BTreeSet<Key>, _) = (wanted.keys.iter().copied().collect(), wanted.emergency);
            let class = if keys.iter().any(|key| self.present.contains_key(key)) { Class::Wrong } else { Class::New };
            self.enqueue(call, keys, if emergency { Class::Emergency } else { class });
        }
        let left: Vec<Key> = self.present.keys().filter(|key| !self.wanted.contains_key(key)).copied().collect();
        for keys in left.chunks(MOST_OF_A_CALL) {
            // This queue entry belongs to no call.
            let place = (Class::Left, self.number());
            self.queue.insert(place, Due { call: String::new(), keys: keys.iter().copied().collect() });
        }
    }

    /// The handed out piece is in force. `took` is its duration.
    pub(super) fn handle_done(&mut self, took: Duration) {
        let PieceUnderWay { given_up, flows } = self.under_way.take().unwrap_or_default();
        self.free.extend(given_up);
        let size = self.size.unwrap_or(LARGEST);
        self.size = Some(if took > TARGET {
            let fits = size.saturating_mul(TARGET.as_micros() as usize) / took.as_micros().max(1) as usize;
            fits.clamp(SMALLEST, LARGEST)
        } else if flows >= size {
            (size + size / 4).min(LARGEST)
        } else {
            size
        });
    }

    /// The state in force is no longer known.
    pub(super) fn handle_unknown(&mut self) {
        self.known = false;
        self.under_way = None;
        self.present.clear();
        self.spoken.clear();
        self.strays.clear();
        self.free.clear();
        self.used = 0;
    }

    /// The next action. `None` if all requests are in force. If the result of an action was never reported, its outcome
    /// counts as unknown.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        if self.under_way.is_some() {
            self.handle_unknown();
        }
        if !self.known {
            return Some(Action::Read);
        }
        let piece = self.piece();
        if piece.is_empty() {
            // The checked keys needed no change.
            self.under_way = None;
            return None;
        }
        Some(Action::Commit(piece))
    }

    /// All requests are in force.
    pub(super) fn is_settled(&self) -> bool {
        self.known && self.under_way.is_none() && self.strays.is_empty() && self.queue.is_empty()
    }

    /// The state in force is known.
    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    /// The flows in force for a call.
    pub(super) fn flows(&self, call: &str) -> impl Iterator<Item = Flow> {
        let keys = self.calls.get(call).map(|c| c.keys.as_slice()).unwrap_or_default();
        keys.iter().filter_map(|key| self.present.get(key)).map(|(flow, _)| *flow)
    }

    /// The flow in force for a key, and its call.
    pub(super) fn flow(&self, key: Key) -> Option<(&str, Flow)> {
        let (_, call) = self.wanted.get(&key)?;
        self.present.get(&key).map(|(flow, _)| (call.as_str(), *flow))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Queues these keys of a call. A call already in the queue keeps its place, unless it becomes more urgent.
    fn enqueue(&mut self, call: &str, mut keys: BTreeSet<Key>, mut class: Class) {
        let differs =
            |key: &Key| self.present.get(key).map(|(flow, _)| *flow) != self.wanted.get(key).map(|(flow, _)| *flow);
        keys.retain(differs);
        if keys.is_empty() {
            return;
        }
        let number = match self.places.remove(call) {
            Some(place) => {
                if let Some(due) = self.queue.remove(&place) {
                    keys.extend(due.keys);
                }
                class = class.min(place.0);
                place.1
            }
            None => self.number(),
        };
        self.places.insert(call.to_owned(), (class, number));
        self.queue.insert((class, number), Due { call: call.to_owned(), keys });
    }

    fn piece(&mut self) -> Piece {
        let size = if self.unbroken { MAX_FLOWS } else { self.size.unwrap_or(LARGEST) };
        let mut work = Work::default();
        // Strays first, because a requested flow may need the same key with another value.
        if !self.strays.is_empty() {
            let rest = self.strays.len().saturating_sub(size * ELEMENTS);
            let strays = self.strays.split_off(rest);
            self.under_way = Some(PieceUnderWay { given_up: Vec::new(), flows: strays.len() / ELEMENTS });
            return Piece { strays, ..Piece::default() };
        }
        if self.free.len() + MAX_FLOWS.saturating_sub(self.used as usize) < MOST_OF_A_CALL {
            self.make_room(size, &mut work);
        }
        while work.changed < size
            && let Some(first) = self.queue.first_entry()
        {
            let (place, due) = first.remove_entry();
            self.places.remove(&due.call);
            let missed: BTreeSet<Key> = due.keys.into_iter().filter(|key| !self.look_at(*key, &mut work)).collect();
            if !missed.is_empty() {
                self.enqueue(&due.call, missed, place.0);
                break;
            }
        }
        self.under_way = Some(PieceUnderWay { given_up: std::mem::take(&mut work.given_up), flows: work.changed });
        self.close(work)
    }

    /// Removes unrequested flows when few numbers are left for new ones. Some always exist, because fewer flows can be
    /// requested than there are numbers.
    fn make_room(&mut self, size: usize, work: &mut Work) {
        let unwanted: Vec<Key> =
            self.present.keys().filter(|key| !self.wanted.contains_key(key)).copied().take(size).collect();
        for key in unwanted {
            self.look_at(key, work);
        }
    }

    /// Brings the flow of a key into its requested state. False if no number was free.
    fn look_at(&mut self, key: Key, work: &mut Work) -> bool {
        let want = self.wanted.get(&key).map(|(flow, _)| *flow);
        let have = self.present.get(&key).copied();
        if have.map(|(flow, _)| flow) == want {
            return true;
        }
        // Get the number first, so that a flow without a replacement stays.
        let slot = match want {
            Some(_) => match self.slot() {
                Some(slot) => Some(slot),
                None => return false,
            },
            None => None,
        };
        work.changed += 1;
        if let Some((flow, slot)) = have {
            self.present.remove(&key);
            work.given_up.push(slot);
            work.out.flows.push((flow, mark(self.tag, slot)));
            work.speaks(self.spoken.entry((flow.source, flow.to)).or_default(), flow, -1);
        }
        if let (Some(flow), Some(slot)) = (want, slot) {
            self.present.insert(key, (flow, slot));
            work.put.flows.push((flow, mark(self.tag, slot)));
            work.speaks(self.spoken.entry((flow.source, flow.to)).or_default(), flow, 1);
        }
        true
    }

    fn slot(&mut self) -> Option<u16> {
        // New numbers first, so that freed numbers rest as long as possible.
        if let Ok(slot) = u16::try_from(self.used) {
            self.used += 1;
            return Some(slot);
        }
        self.free.pop_front()
    }

    fn close(&mut self, mut work: Work) -> Piece {
        for (speaks, (before, flow)) in work.spoken {
            let now = self.spoken.get(&speaks).copied().unwrap_or(0);
            if now == 0 {
                self.spoken.remove(&speaks);
            }
            match (before, now) {
                (0, 0) => {}
                (0, _) => work.put.local.push(flow),
                (_, 0) => work.out.local.push(flow),
                _ => {}
            }
        }
        Piece { strays: Vec::new(), out: work.out, put: work.put }
    }
}

/// A piece under construction.
#[derive(Debug, Default)]
struct Work {
    out: Elements,
    put: Elements,
    given_up: Vec<u16>,
    changed: usize,
    // The number of flows before the change for each pair of our port and phone, and one of these flows.
    spoken: BTreeMap<Key, (u32, Flow)>,
}

impl Work {
    fn speaks(&mut self, count: &mut u32, flow: Flow, change: i32) {
        self.spoken.entry((flow.source, flow.to)).or_insert((*count, flow));
        *count = count.saturating_add_signed(change);
    }
}

#[cfg(test)]
mod tests;
