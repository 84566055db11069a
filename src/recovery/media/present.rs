//! Reads a relay table's sets back into flows. The flows of a predecessor continue, and only differences are changed.

use super::table::{self, SETS};
use crate::calls::model::Flow;
use crate::vip::nfnl::{Data, Found};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// Contents of a table.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// The instance's number in the marks. `None` without flows.
    pub(super) tag: Option<u8>,
    /// Complete flows, each with its number.
    pub(super) flows: Vec<(Flow, u16)>,
    /// Elements outside every complete flow: number of the set, and key.
    pub(super) strays: Vec<(usize, Data)>,
}

impl Present {
    /// Assembles flows from the elements of each of [`SETS`]. A flow is complete if every set has its part and its mark
    /// is unique.
    pub(super) fn of(sets: &[Vec<Found>]) -> Self {
        let parts = Parts::of(sets);
        let mut present = Self::default();
        let mut used = HashSet::new();
        for (from, at, mark) in &parts.senders {
            let Some((flow, tag, slot)) = parts.flow(*from, *at, *mark) else { continue };
            if *present.tag.get_or_insert(tag) == tag {
                present.flows.push((flow, slot));
                for set in 0..SETS.len() {
                    let key = table::of_flow(set, &flow, *mark).map(|(key, _)| key);
                    used.extend(key.or_else(|| table::of_local(set, &flow)).map(|key| (set, key.as_bytes().to_vec())));
                }
            }
        }
        for (set, found) in sets.iter().enumerate() {
            let strays = found.iter().filter(|one| !used.contains(&(set, one.key.clone())));
            present.strays.extend(strays.map(|one| (set, Data::new().then(&one.key))));
        }
        present
    }
}

#[derive(Default)]
struct Parts {
    senders: Vec<(SocketAddr, SocketAddr, u32)>,
    // Number of senders for each mark.
    marks: HashMap<u32, usize>,
    // By mark: the flow's destination, and the source it appears to come from.
    to: [HashMap<u32, IpAddr>; 2],
    source: [HashMap<u32, IpAddr>; 2],
    dport: HashMap<u32, u16>,
    sport: HashMap<u32, u16>,
    local: HashSet<(SocketAddr, SocketAddr)>,
    udptl: HashSet<u32>,
}

impl Parts {
    fn of(sets: &[Vec<Found>]) -> Self {
        let mut parts = Self::default();
        for (set, one) in sets.iter().enumerate().flat_map(|(set, found)| found.iter().map(move |one| (set, one))) {
            let number = |bytes: &[u8]| bytes.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
            match set {
                0 | 1 => {
                    let (Some((from, at)), Some(mark)) = (table::ends(&one.key), number(&one.value)) else { continue };
                    parts.senders.push((from, at, mark));
                    *parts.marks.entry(mark).or_default() += 1;
                }
                2..=5 => {
                    let ip = <[u8; 4]>::try_from(&*one.value).map(IpAddr::from);
                    let ip = ip.or_else(|_| <[u8; 16]>::try_from(&*one.value).map(IpAddr::from));
                    let (Some(mark), Ok(ip)) = (number(&one.key), ip) else { continue };
                    let maps = if set < 4 { &mut parts.to } else { &mut parts.source };
                    if let Some(map) = maps.get_mut(set % 2) {
                        map.insert(mark, ip);
                    }
                }
                6 | 7 => {
                    let (Some(mark), Some(port)) = (number(&one.key), one.value.first_chunk::<2>()) else { continue };
                    let ports = if set == 6 { &mut parts.dport } else { &mut parts.sport };
                    ports.insert(mark, u16::from_be_bytes(*port));
                }
                8 | 9 => parts.local.extend(table::ends(&one.key)),
                _ => parts.udptl.extend(number(&one.key)),
            }
        }
        parts
    }

    fn flow(&self, from: SocketAddr, at: SocketAddr, mark: u32) -> Option<(Flow, u8, u16)> {
        let (tag, slot) = table::of_mark(mark)?;
        let v6 = usize::from(at.is_ipv6());
        let to = SocketAddr::new(*self.to.get(v6)?.get(&mark)?, *self.dport.get(&mark)?);
        let source = SocketAddr::new(*self.source.get(v6)?.get(&mark)?, *self.sport.get(&mark)?);
        let whole = self.marks.get(&mark) == Some(&1) && self.local.contains(&(source, to));
        whole.then_some((Flow { from, at, to, source, udptl: self.udptl.contains(&mark) }, tag, slot))
    }
}
