//! The filter that the kernel runs on every frame: classic BPF, assembled by hand.

use socket2::SockFilter;

/// Ports that a program has room for: a jump reaches 255 instructions, and each port takes two.
pub(super) const MAX_PORTS: usize = 64;

// Opcodes of classic BPF (linux/filter.h, linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_AT_X: u16 = 0x48;
const X_IS_HEADER_LENGTH: u16 = 0xb1;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where the kernel keeps the frame's protocol: SKF_AD_OFF + SKF_AD_PROTOCOL.
const PROTOCOL: u32 = 0xffff_f000;
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
