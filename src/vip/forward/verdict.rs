//! What the rules of other programs do with a packet of the relay, as far as they can be judged. Pure.
//!
//! The judge walks a chain as the kernel does, with a packet of which some facts are known: a UDP packet that connection
//! tracking leaves alone, with the relay's mark, that enters and leaves by the instance's interface. A rule that asks
//! for anything else may match or not. A drop counts only if it is certain, and so does an accept; an accept that may
//! happen makes a later drop uncertain.

use super::{MARK, MASK};
use crate::vip::nfnl::{Malformed, Rule, each, first, text};
use std::collections::BTreeMap;

/// The kernel's own limit of nested jumps (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Rules in one walk, over all jumps: far more than a packet can afford.
const STEPS: usize = 200_000;
/// Bytes of the kernel's registers (`NFT_REG_SIZE` of 16 for each of five, the first of which holds verdicts).
const REGISTERS: usize = 80;

/// The packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// IPv6 or IPv4.
    pub(super) v6: bool,
    /// The interface by which it comes and goes.
    pub(super) interface: &'a str,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes this chain.
    Passes,
    /// It is dropped. `certain`: no rule before may have accepted it.
    Dropped { certain: bool },
}

/// The fate of `packet` in the base chain `chain`, which drops what no rule judges if `drops`.
pub(super) fn fate(rules: &[Rule], chain: &str, drops: bool, packet: Packet<'_>) -> Fate {
    let mut chains: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        chains.entry(&rule.chain).or_default().push(rule);
    }
    let mut walk = Walk { chains, packet, steps: STEPS, maybe: false };
    let dropped = match walk.through(chain, 0) {
        End::Accept => false,
        End::Drop => true,
        End::Back => drops,
    };
    if dropped { Fate::Dropped { certain: !walk.maybe } } else { Fate::Passes }
}

/// How a walk through a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    /// Back to the chain that jumped, or to the policy.
    Back,
}

struct Walk<'a> {
    chains: BTreeMap<&'a str, Vec<&'a Rule>>,
    packet: Packet<'a>,
    steps: usize,
    /// Something may have accepted the packet.
    maybe: bool,
}

impl Walk<'_> {
    fn through(&mut self, chain: &str, depth: usize) -> End {
        let rules = self.chains.get(chain).cloned().unwrap_or_default();
        for rule in rules {
            if self.steps == 0 || depth >= DEPTH {
                self.maybe = true;
                return End::Back;
            }
            self.steps -= 1;
            // An unreadable rule may do anything.
            let Ok(judged) = judge(&rule.body, self.packet) else {
                self.maybe = true;
                continue;
            };
            let certain = match judged.matches {
                Some(true) => true,
                Some(false) => continue,
                None => false,
            };
            let end = match judged.verdict {
                Verdict::None => continue,
                Verdict::Unknown => {
                    self.maybe = true;
                    continue;
                }
                Verdict::Accept => End::Accept,
                Verdict::Drop => End::Drop,
                Verdict::Return => End::Back,
                Verdict::Jump(to) => match self.through(&to, depth + 1) {
                    End::Back => continue,
                    end => end,
                },
                Verdict::Goto(to) => self.through(&to, depth + 1),
            };
            if certain {
                return end;
            }
            self.maybe |= end == End::Accept;
        }
        End::Back
    }
}

/// The last word of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    None,
    /// A verdict map, or a queue to a program.
    Unknown,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

struct Judged {
    /// Whether the packet matches; `None` if that is not known.
    matches: Option<bool>,
    verdict: Verdict,
}

/// The registers: each byte with the bits of it that are known.
struct Registers {
    value: [u8; REGISTERS],
    known: [u8; REGISTERS],
}

impl Registers {
    /// Where a register begins: 1 to 4 have 16 bytes, 8 and above 4 bytes from the same place on.
    fn place(number: u32) -> Option<usize> {
        let number = usize::try_from(number).ok()?;
        let at = if number < 5 { number * 16 } else { 16 + number.checked_sub(8)? * 4 };
        (at < REGISTERS).then_some(at)
    }

    fn load(&mut self, register: u32, value: &[u8], known: &[u8]) {
        let Some(at) = Self::place(register) else { return };
        for (i, (v, k)) in value.iter().zip(known).enumerate() {
            if let (Some(to), Some(of)) = (self.value.get_mut(at + i), self.known.get_mut(at + i)) {
                (*to, *of) = (*v, *k);
            }
        }
    }

    fn get(&self, register: u32, length: usize) -> Option<(&[u8], &[u8])> {
        let at = Self::place(register)?;
        Some((self.value.get(at..at + length)?, self.known.get(at..at + length)?))
    }

    fn forget(&mut self) {
        self.known = [0; REGISTERS];
    }
}

// enum nft_expr_attributes, and the attributes of each expression (`linux/netfilter/nf_tables.h`).
const NAME: u16 = 1;
const DATA: u16 = 2;
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const CMP: [u16; 3] = [1, 2, 3];
const BITWISE: [u16; 6] = [1, 2, 3, 4, 5, 6];
const IMMEDIATE: [u16; 2] = [1, 2];
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const XT_NAME: u16 = 1;
const XT_INFO: u16 = 3;
/// `IP_CT_UNTRACKED` as the state of connection tracking (`NF_CT_STATE_UNTRACKED_BIT`).
const UNTRACKED: u32 = 1 << 6;
const UDP: u8 = 17;

/// The number in an attribute; `u32::MAX`, which is no register and no key, without one.
fn number(attributes: &[u8], kind: u16) -> Result<u32, Malformed> {
    Ok(first(attributes, kind)?.and_then(|v| v.first_chunk::<4>()).map_or(u32::MAX, |b| u32::from_be_bytes(*b)))
}

fn judge(body: &[u8], packet: Packet<'_>) -> Result<Judged, Malformed> {
    let mut registers = Registers { value: [0; REGISTERS], known: [0; REGISTERS] };
    let mut judged = Judged { matches: Some(true), verdict: Verdict::None };
    for element in each(body) {
        let (_, expression) = element?;
        let name = first(expression, NAME)?.map(text).unwrap_or_default();
        let data = first(expression, DATA)?.unwrap_or_default();
        let matches = match name.as_str() {
            "meta" => {
                meta(data, packet, &mut registers)?;
                Some(true)
            }
            "ct" if number(data, 2)? == 0 => {
                registers.load(number(data, 1)?, &UNTRACKED.to_ne_bytes(), &[0xff; 4]);
                Some(true)
            }
            "bitwise" => {
                bitwise(data, &mut registers)?;
                Some(true)
            }
            "cmp" => compare(data, &registers)?,
            "immediate" => {
                immediate(data, &mut registers, &mut judged.verdict)?;
                Some(true)
            }
            "reject" => {
                judged.verdict = Verdict::Drop;
                Some(true)
            }
            "queue" => {
                judged.verdict = Verdict::Unknown;
                Some(true)
            }
            "lookup" => {
                // A map of verdicts writes register 0.
                if number(data, LOOKUP_DREG)? == 0 {
                    judged.verdict = Verdict::Unknown;
                } else {
                    registers.forget();
                }
                None
            }
            "match" => marked(data)?,
            "target" => {
                if matches!(first(data, XT_NAME)?.map(text).as_deref(), Some("REJECT" | "DROP")) {
                    judged.verdict = Verdict::Drop;
                }
                Some(true)
            }
            "counter" | "log" | "notrack" | "last" | "flow_offload" | "objref" | "dup" => Some(true),
            // They load what is not known here, and match always.
            "payload" | "exthdr" | "ct" | "fib" | "rt" | "socket" | "numgen" | "hash" | "byteorder" | "tunnel" => {
                registers.forget();
                Some(true)
            }
            // `limit`, `quota`, `connlimit` and what comes later.
            _ => {
                registers.forget();
                None
            }
        };
        match matches {
            Some(true) => {}
            Some(false) => {
                judged.matches = Some(false);
                return Ok(judged);
            }
            None => judged.matches = None,
        }
    }
    Ok(judged)
}

fn meta(data: &[u8], packet: Packet<'_>, registers: &mut Registers) -> Result<(), Malformed> {
    // A rule that sets a value reads a register.
    if first(data, META_SREG)?.is_some() {
        return Ok(());
    }
    let to = number(data, META_DREG)?;
    let mut name = [0; 16];
    for (slot, byte) in name.iter_mut().zip(packet.interface.bytes()) {
        *slot = byte;
    }
    match number(data, META_KEY)? {
        // NFT_META_PROTOCOL, _MARK, _IIFNAME and _OIFNAME, _NFPROTO, _L4PROTO
        1 => registers.load(to, &(if packet.v6 { 0x86dd_u16 } else { 0x0800 }).to_be_bytes(), &[0xff; 2]),
        3 => registers.load(to, &MARK.to_ne_bytes(), &MASK.to_ne_bytes()),
        6 | 7 => registers.load(to, &name, &[0xff; 16]),
        15 => registers.load(to, &[if packet.v6 { 10 } else { 2 }], &[0xff]),
        16 => registers.load(to, &[UDP], &[0xff]),
        _ => registers.load(to, &[0; 16], &[0; 16]),
    }
    Ok(())
}

/// A register and a mask; the other operations (shifts) leave nothing known.
fn bitwise(data: &[u8], registers: &mut Registers) -> Result<(), Malformed> {
    let [sreg, dreg, length, mask, xor, operation] = BITWISE;
    let value = |kind| Ok::<_, Malformed>(first(first(data, kind)?.unwrap_or_default(), VALUE)?.unwrap_or_default());
    let (mask, xor) = (value(mask)?, value(xor)?);
    let length = number(data, length)? as usize;
    let plain = matches!(number(data, operation)?, 0 | u32::MAX) && mask.len() == length && xor.len() == length;
    let to = number(data, dreg)?;
    let done = registers.get(number(data, sreg)?, length.min(16)).filter(|_| plain).map(|(v, k)| {
        let masked: Vec<u8> = v.iter().zip(mask).zip(xor).map(|((v, m), x)| (v & m) ^ x).collect();
        // A bit that the mask clears is known, whatever it was.
        let known: Vec<u8> = k.iter().zip(mask).map(|(k, m)| k | !m).collect();
        (masked, known)
    });
    match done {
        Some((value, known)) => registers.load(to, &value, &known),
        None => registers.load(to, &[0; 16], &[0; 16]),
    }
    Ok(())
}

fn compare(data: &[u8], registers: &Registers) -> Result<Option<bool>, Malformed> {
    let [sreg, operation, value] = CMP;
    let value = first(first(data, value)?.unwrap_or_default(), VALUE)?.unwrap_or_default();
    let Some((have, known)) = registers.get(number(data, sreg)?, value.len()) else { return Ok(None) };
    let differs = have.iter().zip(value).zip(known).any(|((h, v), k)| (h ^ v) & k != 0);
    let whole = known.iter().all(|k| *k == 0xff);
    let equal = if differs { Some(false) } else { whole.then_some(true) };
    Ok(match number(data, operation)? {
        0 => equal,
        1 => equal.map(|equal| !equal),
        // The kernel compares bytes from the first on.
        2 if whole => Some(have < value),
        3 if whole => Some(have <= value),
        4 if whole => Some(have > value),
        5 if whole => Some(have >= value),
        _ => None,
    })
}

fn immediate(data: &[u8], registers: &mut Registers, verdict: &mut Verdict) -> Result<(), Malformed> {
    let [dreg, content] = IMMEDIATE;
    let (to, content) = (number(data, dreg)?, first(data, content)?.unwrap_or_default());
    let Some(said) = first(content, VERDICT)? else {
        let value = first(content, VALUE)?.unwrap_or_default();
        registers.load(to, value, &vec![0xff; value.len()]);
        return Ok(());
    };
    let chain = || Ok::<_, Malformed>(text(first(said, VERDICT_CHAIN)?.unwrap_or_default()));
    *verdict = match number(said, VERDICT_CODE)?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::None,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => Verdict::Unknown,
    };
    Ok(())
}

/// A match of iptables that is not translated: older ones write the mark so (`struct xt_mark_mtinfo1`).
fn marked(data: &[u8]) -> Result<Option<bool>, Malformed> {
    if first(data, XT_NAME)?.map(text).as_deref() == Some("comment") {
        return Ok(Some(true));
    }
    if first(data, XT_NAME)?.map(text).as_deref() != Some("mark") {
        return Ok(None);
    }
    let info = first(data, XT_INFO)?.unwrap_or_default();
    let word = |at: usize| info.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
    let (Some(mark), Some(mask), Some(invert)) = (word(0), word(4), info.get(8)) else { return Ok(None) };
    let differs = (MARK ^ mark) & mask & MASK != 0;
    let equal = if differs { Some(false) } else { (mask & !MASK == 0).then_some(true) };
    Ok(equal.map(|equal| equal != (*invert != 0)))
}

#[cfg(test)]
mod tests;
