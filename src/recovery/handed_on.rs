//! Proxied calls whose audio the relay forwards: the former server's media server is gone, and the new one takes over
//! with the next offer and answer. Pure.

use super::permitted::Ground;
use super::{plan, recoverability};
use crate::calls::model::{Call, CallEvent, Flow};
use crate::sip::sdp::Place;
use std::collections::BTreeMap;

/// The server's media addresses of each leg, as the phones know them.
type Anchors = Vec<Option<Vec<Option<Place>>>>;

#[derive(Debug)]
struct Relayed {
    anchors: Anchors,
    flows: Vec<Flow>,
}

/// The handed-on calls with relayed audio, by call id.
#[derive(Debug, Default)]
pub struct HandedOn(BTreeMap<String, Relayed>);

impl HandedOn {
    /// Adds a call of a takeover with the paths that are relayed. `followed`: the tracker follows the call, so its
    /// changes and its end are noticed.
    ///
    /// Returns the paths that the relay forwards from now on, if they change: without a follower they would outlive
    /// the call.
    #[must_use]
    pub fn add(&mut self, call: &Call, flows: Vec<Flow>, followed: bool, ground: &Ground) -> Option<Vec<Flow>> {
        if flows.is_empty() {
            return None;
        }
        if !followed {
            return Some(Vec::new());
        }
        self.0.insert(call.id.clone(), Relayed { anchors: anchors(call, ground), flows });
        None
    }

    /// The tracker's news of a call. Returns the call and the paths that the relay forwards from now on, if they change.
    ///
    /// The paths end with the call, and as soon as a description names other ports of the server: then the new media
    /// server is in place, and packets to its ports are not the relay's. They follow a phone that moves.
    #[must_use]
    pub fn handle(&mut self, event: &CallEvent, ground: &Ground) -> Option<(String, Vec<Flow>)> {
        match event {
            CallEvent::Delete { id, .. } => self.0.remove(id).map(|_| (id.clone(), Vec::new())),
            CallEvent::Put(call) => {
                let relayed = self.0.get_mut(&call.id)?;
                if anchors(call, ground) != relayed.anchors {
                    self.0.remove(&call.id);
                    return Some((call.id.clone(), Vec::new()));
                }
                let flows = recoverability::of(call, ground).1.flows;
                (flows != relayed.flows).then(|| {
                    relayed.flows.clone_from(&flows);
                    (call.id.clone(), flows)
                })
            }
        }
    }

    /// Forgets all calls.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

fn anchors(call: &Call, ground: &Ground) -> Anchors {
    call.legs.iter().map(|leg| plan::anchors(leg, ground)).collect()
}

#[cfg(test)]
mod tests;
