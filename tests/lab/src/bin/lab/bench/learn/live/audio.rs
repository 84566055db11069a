//! The RTP of all calls that are up: 50 packets per second and direction of each leg, from the phones to the server and
//! back. Nobody listens; nft drops the packets before they reach a socket.

use super::super::pcap;
use super::super::traffic::Places;
use super::super::words::{By, Dialog};
use anyhow::{Context as _, Result};
use lab::lan::Host;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// Time between two packets of a stream.
const PTIME: Duration = Duration::from_millis(20);
/// Parts of that time. Each part has its share of the calls, so that the packets are spread evenly.
const PARTS: usize = 4;
/// Calls after which ports are used again; `words` assigns the ports.
const SLOTS: usize = 2400;
/// Packets of one system call.
const BATCH: usize = 256;

/// Packets of the streams of one side, by slot.
struct Side {
    socket: Socket,
    packets: Vec<(Vec<u8>, SockaddrIn)>,
}

/// All streams, ready to be sent.
pub(super) struct Audio {
    /// The callers, the called parties, and the server with both of its streams for each call.
    phones: [Side; 2],
    server: Side,
    pace: Duration,
}

impl Audio {
    /// `pace` is the time between the starts of two calls.
    pub(super) fn new(server: &Host, phones: [&Host; 2], places: &Places, pace: Duration) -> Result<Self> {
        let drop_media = |host: &Host, ports: &str| {
            let rules = format!(
                "table inet bench {{ chain media {{ type filter hook input priority 0; policy accept; udp dport {ports} drop; }}; }}"
            );
            host.exec(&["nft", &rules]).map(drop)
        };
        drop_media(server, "10000-20000")?;
        for phone in phones {
            drop_media(phone, "20000-30000")?;
        }
        let side = |out: bool| -> Result<(Vec<_>, Vec<_>)> {
            let ip = if out { places.called[0] } else { places.callers[0] };
            let (mut there, mut back) = (Vec::new(), Vec::new());
            for n in 0..SLOTS {
                let (phone, ours) =
                    (Dialog::media(n, out, By::Phone, ip), Dialog::media(n, out, By::Server, places.server.ip()));
                there.push(packet(phone, ours, n)?);
                back.push(packet(ours, phone, n)?);
            }
            Ok((there, back))
        };
        let ((by_callers, to_callers), (by_called, to_called)) = (side(false)?, side(true)?);
        let by_server = to_callers.into_iter().zip(to_called).flat_map(|(a, b)| [a, b]).collect();
        Ok(Self {
            phones: [
                Side { socket: raw(phones[0])?, packets: by_callers },
                Side { socket: raw(phones[1])?, packets: by_called },
            ],
            server: Side { socket: raw(server)?, packets: by_server },
            pace,
        })
    }

    /// Sends what the phones send, from `start` until `end` after it.
    pub(super) fn by_phones(&self, start: Instant, ringing: Duration, hold: Duration, end: Duration) -> Result<()> {
        self.each(start, ringing, hold, end, |slots| {
            self.phones.iter().try_for_each(|p| send(&p.socket, slots.iter().map(|&n| &p.packets[n])))
        })
    }

    /// Sends what the server sends.
    pub(super) fn by_server(&self, start: Instant, ringing: Duration, hold: Duration, end: Duration) -> Result<()> {
        self.each(start, ringing, hold, end, |slots| {
            send(&self.server.socket, slots.iter().flat_map(|&n| &self.server.packets[2 * n..2 * n + 2]))
        })
    }

    fn each(
        &self,
        start: Instant,
        ringing: Duration,
        hold: Duration,
        end: Duration,
        mut send: impl FnMut(&[usize]) -> Result<()>,
    ) -> Result<()> {
        let (mut at, mut part) = (Duration::ZERO, 0);
        let mut slots = Vec::new();
        while at < end {
            std::thread::sleep((start + at).saturating_duration_since(Instant::now()));
            // Calls that are answered by now, and not over.
            let number = |age: Duration| {
                at.checked_sub(age).map_or(0, |t| 1 + (t.as_nanos() / self.pace.as_nanos().max(1)) as usize)
            };
            slots.clear();
            slots.extend((number(ringing + hold)..number(ringing)).filter(|n| n % PARTS == part).map(|n| n % SLOTS));
            send(&slots)?;
            part = (part + 1) % PARTS;
            at += PTIME / PARTS as u32;
            // Skips what is late: otherwise the rest would come in one burst.
            let late = Instant::now().saturating_duration_since(start + at);
            if late > PTIME {
                let skipped = (late.as_nanos() / (PTIME / PARTS as u32).as_nanos()) as usize;
                at += PTIME / PARTS as u32 * u32::try_from(skipped)?;
                part = (part + skipped) % PARTS;
            }
        }
        Ok(())
    }
}

/// An RTP packet with 20 ms of G.711.
fn packet(from: SocketAddr, to: SocketAddr, ssrc: usize) -> Result<(Vec<u8>, SockaddrIn)> {
    let mut rtp = vec![0x80, 8, 0, 1, 0, 0, 0, 160];
    rtp.extend(u32::try_from(ssrc)?.to_be_bytes());
    rtp.resize(12 + 160, 0xd5);
    let mut bytes = Vec::new();
    pcap::packet(from, to, &rtp, &mut bytes)?;
    let IpAddr::V4(ip) = to.ip() else { anyhow::bail!("only IPv4 here, not {to}") };
    Ok((bytes, SockaddrIn::from(SocketAddrV4::new(ip, 0))))
}

/// A socket whose packets bring their own IP header, so that one socket can send from all ports.
fn raw(host: &Host) -> Result<Socket> {
    host.enter(|| {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).context("a raw socket")?;
        socket.set_send_buffer_size(4 << 20)?;
        Ok(socket)
    })
}

fn send<'p>(socket: &Socket, packets: impl Iterator<Item = &'p (Vec<u8>, SockaddrIn)>) -> Result<()> {
    let all: Vec<_> = packets.map(|(bytes, to)| ([IoSlice::new(bytes)], Some(*to))).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    for batch in all.chunks(BATCH) {
        let addresses: Vec<_> = batch.iter().map(|(_, to)| *to).collect();
        match sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            batch.iter().map(|(s, _)| s),
            &addresses,
            [],
            MsgFlags::empty(),
        ) {
            // Like any network, this one loses packets under overload.
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(e) => return Err(e).context("the audio"),
        }
    }
    Ok(())
}
