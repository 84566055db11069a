//! Ring memory shared with the kernel (TPACKET_V3). The kernel fills blocks with frames and hands a block over when it
//! is full or was open for a while. A frame costs no system call and no copy.

use super::packet::PacketSocket;
use nix::errno::Errno;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a block. The longest frame, a 64 kB segment that the network card will split, must fit with its headers.
const BLOCK: usize = 128 << 10;
/// Milliseconds until a partly filled block is handed over. This adds at most 8 ms to the 50 ms that the stored state
/// may lag, and causes at most 125 wake-ups a second.
const RETIRE_MS: u32 = 8;
/// Nominal frame size for the kernel. Frames in a block have any length.
const FRAME: usize = 2048;

/// The ring. Dropping it unmaps the memory. The owner of the socket must keep the socket open until then.
#[derive(Debug)]
pub(crate) struct Ring {
    map: NonNull<u8>,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping belongs to the whole process, and only this value, which is not Clone, points into it.
unsafe impl Send for Ring {}
// SAFETY: through a shared reference only the status of a block is read, which is atomic.
unsafe impl Sync for Ring {}

/// One frame in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Data from the network header on.
    pub(crate) data: &'a [u8],
    /// The frame was too long for the ring.
    pub(crate) cut: bool,
    /// `sll_pkttype` of packet(7).
    pub(crate) packet_type: u16,
    /// The sender's link address, if it has six bytes.
    pub(crate) link: Option<[u8; 6]>,
}

impl Ring {
    /// Sets up a ring of `bytes` for a socket that is not bound yet.
    pub(crate) fn set_up(socket: &PacketSocket, bytes: usize) -> io::Result<Self> {
        let blocks = (bytes / BLOCK).max(2);
        let too_large = || io::Error::from(Errno::ENOMEM);
        let small = |n: usize| u32::try_from(n).map_err(|_| too_large());
        let length = blocks.checked_mul(BLOCK).ok_or_else(too_large)?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        socket.set_option(libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req3 {
            tp_block_size: small(BLOCK)?,
            tp_block_nr: small(blocks)?,
            tp_frame_size: small(FRAME)?,
            tp_frame_nr: small(length / FRAME)?,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket.set_option(libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new shared mapping of an open descriptor. The kernel chooses the address and checks the length
        // against the ring's own.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast()).ok_or_else(too_large)?;
        Ok(Self { map, blocks, next: 0 })
    }

    /// The kernel has handed the next block to this process.
    pub(crate) fn is_ready(&self) -> bool {
        self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Hands each frame of the next ready block to `each`, then returns the block to the kernel. False if no block was
    /// ready.
    pub(crate) fn read(&mut self, each: &mut dyn FnMut(Frame<'_>)) -> bool {
        if !self.is_ready() {
            return false;
        }
        let _returned = Returned(self.status(self.next));
        // SAFETY: the block lies within the mapping. An acquire load of its status showed that the kernel has written
        // all of it. The kernel leaves it alone until the status is set back, at the end of this function.
        let block = unsafe { std::slice::from_raw_parts(self.block(self.next), BLOCK) };
        self.next = (self.next + 1) % self.blocks;
        frames(block, each);
        true
    }

    fn block(&self, n: usize) -> *const u8 {
        // SAFETY: n is below the number of blocks, so the address is inside the mapping.
        unsafe { self.map.as_ptr().add(n * BLOCK) }
    }

    fn status<'a>(&self, n: usize) -> &'a AtomicU32 {
        const AT: usize = std::mem::offset_of!(libc::tpacket_block_desc, hdr)
            + std::mem::offset_of!(libc::tpacket_hdr_v1, block_status);
        // SAFETY: a block begins page-aligned with its descriptor, so the status is aligned. It lies within the
        // mapping, which lives as long as the ring, and only functions of the ring use the reference. The kernel
        // changes the status at any time, as an atomic allows.
        unsafe { AtomicU32::from_ptr(self.block(n).add(AT).cast_mut().cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length, and nothing points into it any more, because frames are lent
        // to closures only.
        unsafe {
            libc::munmap(self.map.as_ptr().cast(), self.blocks * BLOCK);
        }
    }
}

/// Returns a block to the kernel, even if its reader panics.
struct Returned<'a>(&'a AtomicU32);

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.0.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// Hands out the frames of a block. Every offset is checked, although the kernel is trusted.
fn frames(block: &[u8], each: &mut dyn FnMut(Frame<'_>)) {
    use std::mem::offset_of;
    const HEADER: usize = offset_of!(libc::tpacket_block_desc, hdr);
    // The kernel places the frame's sockaddr_ll behind its header, aligned (TPACKET_ALIGN).
    const ADDRESS: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
    let u32_at = |at: usize| Some(u32::from_ne_bytes(block.get(at..at + 4)?.try_into().ok()?) as usize);
    let u16_at = |at: usize| Some(usize::from(u16::from_ne_bytes(block.get(at..at + 2)?.try_into().ok()?)));
    let count = u32_at(HEADER + offset_of!(libc::tpacket_hdr_v1, num_pkts)).unwrap_or(0);
    let mut at = u32_at(HEADER + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt)).unwrap_or(0);
    for _ in 0..count {
        let frame = (|| {
            let kept = u32_at(at + offset_of!(libc::tpacket3_hdr, tp_snaplen))?;
            let long = u32_at(at + offset_of!(libc::tpacket3_hdr, tp_len))?;
            let start = at + u16_at(at + offset_of!(libc::tpacket3_hdr, tp_net))?;
            let address = block.get(at + ADDRESS..at + ADDRESS + size_of::<libc::sockaddr_ll>())?;
            let byte = |at: usize| address.get(at).copied();
            let link = address.get(offset_of!(libc::sockaddr_ll, sll_addr)..)?.first_chunk::<6>().copied();
            let length = byte(offset_of!(libc::sockaddr_ll, sll_halen))?;
            Some(Frame {
                data: block.get(start..start + kept)?,
                cut: kept < long,
                packet_type: u16::from(byte(offset_of!(libc::sockaddr_ll, sll_pkttype))?),
                link: link.filter(|_| length == 6),
            })
        })();
        if let Some(frame) = frame {
            each(frame);
        }
        let Some(next) = u32_at(at + offset_of!(libc::tpacket3_hdr, tp_next_offset)) else { return };
        at += next;
    }
}
