//! The filter that the kernel runs on every frame: classic BPF, assembled by hand.

use socket2::SockFilter;
use std::net::IpAddr;

/// Ports that a program has room for: a jump reaches 255 instructions, and each port takes two.
pub(super) const MAX_PORTS: usize = 64;

// Opcodes of classic BPF (linux/filter.h, linux/bpf_common.h).
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_AT_X: u16 = 0x48;
const X_IS_HEADER_LENGTH: u16 = 0xb1;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where the kernel keeps the frame's protocol: SKF_AD_OFF + SKF_AD_PROTOCOL.
const PROTOCOL: u32 = 0xffff_f000;
/// A random number for each packet: SKF_AD_OFF + SKF_AD_RANDOM.
const RANDOM: u32 = 0xffff_f038;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const UDP: u32 = 17;
const FRAGMENT: u32 = 44;

/// Opcode, instructions to skip if a test holds, and if it does not, operand.
type Op = (u16, u8, u8, u32);

const ACCEPT: Op = (RETURN, 0, 0, u32::MAX);
const REJECT: Op = (RETURN, 0, 0, 0);

/// Whole packets of UDP from or to one of `ports`, and the fragments that may belong to such. Starts at the IP header (a DGRAM
/// packet socket). `None` if there are no ports or too many.
///
/// A first fragment has ports and is judged by them; a later one has none and passes. An IPv6 packet with other extension
/// headers than a fragment header does not pass: phones send none.
pub(super) fn ports_filter(ports: &[u16]) -> Option<Vec<SockFilter>> {
    if ports.is_empty() || ports.len() > MAX_PORTS {
        return None;
    }
    let in_fragment = |protocol: u32, offset: u32, bits: u32| {
        vec![
            (LOAD_BYTE, 0, 0, protocol),
            (IF_EQUAL, 1, 0, UDP),
            REJECT,
            (LOAD_HALF, 0, 0, offset),
            // A later fragment: its offset is not zero.
            (IF_ANY_BIT, 0, 1, bits),
            ACCEPT,
        ]
    };
    let v4 = [
        in_fragment(9, 6, 0x1fff),
        vec![(X_IS_HEADER_LENGTH, 0, 0, 0)],
        judge((LOAD_HALF_AT_X, 0, 0, 0), (LOAD_HALF_AT_X, 0, 0, 2), ports),
    ]
    .concat();
    let v6_plain = judge((LOAD_HALF, 0, 0, 40), (LOAD_HALF, 0, 0, 42), ports);
    let v6_fragment = [in_fragment(40, 42, 0xfff8), judge((LOAD_HALF, 0, 0, 48), (LOAD_HALF, 0, 0, 50), ports)].concat();
    let v6 = either((LOAD_BYTE, 0, 0, 6), (UDP, v6_plain), (FRAGMENT, v6_fragment));
    let all = either((LOAD_HALF, 0, 0, PROTOCOL), (IPV4, v4), (IPV6, v6));
    Some(all.into_iter().map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect())
}

/// A random one of `one_in` of the whole UDP packets to one of `addresses` and a port of `ports` (first and last). Starts at the
/// IP header, like [`ports_filter`]. The draw comes first, so that most packets cost two instructions.
pub(super) fn sample_filter(addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Option<Vec<SockFilter>> {
    if addresses.is_empty() || addresses.len() > MAX_PORTS {
        return None;
    }
    let draw = vec![(LOAD_WORD, 0, 0, RANDOM), (IF_AT_LEAST, 0, 1, u32::MAX / one_in.max(1)), REJECT];
    let in_range = |load: Op| {
        vec![load, (IF_AT_LEAST, 1, 0, u32::from(ports.0)), REJECT, (IF_ABOVE, 0, 1, u32::from(ports.1)), REJECT, ACCEPT]
    };
    let v4_addresses = addresses.iter().filter_map(|a| match a {
        IpAddr::V4(a) => Some(vec![u32::from(*a)]),
        IpAddr::V6(_) => None,
    });
    let v6_addresses = addresses.iter().filter_map(|a| match a {
        IpAddr::V4(_) => None,
        IpAddr::V6(a) => Some(a.octets().chunks_exact(4).filter_map(|c| Some(u32::from_be_bytes(c.try_into().ok()?))).collect()),
    });
    let v4 = [
        // UDP, whole: neither more fragments to come nor an offset.
        vec![(LOAD_BYTE, 0, 0, 9), (IF_EQUAL, 1, 0, UDP), REJECT, (LOAD_HALF, 0, 0, 6), (IF_ANY_BIT, 0, 1, 0x3fff), REJECT],
        one_of(16, v4_addresses.collect()),
        vec![(X_IS_HEADER_LENGTH, 0, 0, 0)],
        in_range((LOAD_HALF_AT_X, 0, 0, 2)),
    ]
    .concat();
    let v6 = [
        vec![(LOAD_BYTE, 0, 0, 6), (IF_EQUAL, 1, 0, UDP), REJECT],
        one_of(24, v6_addresses.collect()),
        in_range((LOAD_HALF, 0, 0, 42)),
    ]
    .concat();
    let all = [draw, either((LOAD_HALF, 0, 0, PROTOCOL), (IPV4, v4), (IPV6, v6))].concat();
    Some(all.into_iter().map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect())
}

/// Goes on if the words at `offset` are one of `addresses`; else rejects.
fn one_of(offset: u32, addresses: Vec<Vec<u32>>) -> Vec<Op> {
    let mut block: Vec<Op> = Vec::new();
    // From the last to the first, so that each match knows how far it is to what follows.
    for words in addresses.iter().rev() {
        let mut test: Vec<Op> = Vec::new();
        let length = u8::try_from(2 * words.len() + 1).unwrap_or(u8::MAX);
        for (i, word) in (0u8..).zip(words) {
            test.push((LOAD_WORD, 0, 0, offset + 4 * u32::from(i)));
            // Not this address: on to the next test.
            test.push((IF_EQUAL, 0, length - 2 * i - 2, *word));
        }
        let over = u32::try_from(block.len() + 1).unwrap_or(u32::MAX);
        test.push((JUMP, 0, 0, over));
        test.extend(block);
        block = test;
    }
    block.push(REJECT);
    block
}

/// Goes on with the block whose value is loaded; rejects any other value. The jumps of tests have 8 bits, which do not reach
/// over a block with many ports, so the blocks are entered through unconditional ones.
fn either(load: Op, first: (u32, Vec<Op>), second: (u32, Vec<Op>)) -> Vec<Op> {
    // At most a thousand instructions in all: the length always fits.
    let over = u32::try_from(first.1.len()).unwrap_or(u32::MAX);
    let head = vec![load, (IF_EQUAL, 2, 0, first.0), (IF_EQUAL, 2, 0, second.0), REJECT, (JUMP, 0, 0, 1), (JUMP, 0, 0, over)];
    [head, first.1, second.1].concat()
}

/// Loads the source, then the destination port by the given instructions, and accepts if one is in the list.
fn judge(source: Op, destination: Op, ports: &[u16]) -> Vec<Op> {
    let mut block = Vec::new();
    let length = 2 * ports.len() + 4;
    for load in [source, destination] {
        block.push(load);
        for port in ports {
            // To the accept, the last instruction: at most 2 * MAX_PORTS + 2 further on, which 8 bits hold.
            let skip = u8::try_from(length - block.len() - 2).unwrap_or(u8::MAX);
            block.push((IF_EQUAL, skip, 0, u32::from(*port)));
        }
    }
    block.push(REJECT);
    block.push(ACCEPT);
    block
}
