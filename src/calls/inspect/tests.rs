use super::super::model::{Direction, Pairing};
use super::super::table::script::{A, B, Dialog, Phone, Server, VIP};
use super::*;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use proptest::prelude::*;

type Step = (super::super::table::script::By, String, String);

/// A UDP datagram in an IPv4 packet.
fn ip(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(s), IpAddr::V4(d)) = (src.ip(), dst.ip()) else { panic!() };
    let total = u16::try_from(28 + payload.len()).unwrap();
    let mut out = vec![0x45, 0];
    out.extend(total.to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend(s.octets());
    out.extend(d.octets());
    out.extend(src.port().to_be_bytes());
    out.extend(dst.port().to_be_bytes());
    out.extend((total - 20).to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

fn packets(steps: &[Step]) -> Vec<Vec<u8>> {
    let one = |(by, phone, text): &Step| {
        let (vip, phone) = (VIP.parse().unwrap(), phone.parse().unwrap());
        let (src, dst) = if *by == Phone { (phone, vip) } else { (vip, phone) };
        ip(src, dst, text.as_bytes())
    };
    steps.iter().map(one).collect()
}

/// Frames 10 ms apart as a pcap file with this link type and these bytes in front of each packet.
fn pcap(link: DataLink, front: &[u8], packets: &[Vec<u8>]) -> Vec<u8> {
    let mut w = PcapWriter::with_header(Vec::new(), PcapHeader { datalink: link, ..PcapHeader::default() }).unwrap();
    for (n, p) in packets.iter().enumerate() {
        let data = [front, p].concat();
        let at = Duration::from_millis(1_700_000_000_000 + 10 * n as u64);
        w.write_packet(&PcapPacket::new_owned(at, u32::try_from(data.len()).unwrap(), data)).unwrap();
    }
    w.into_writer()
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, &len].concat()
}

fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    let section = [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let mut out = block(0x0a0d_0d0a, &section);
    // Raw IP, no options: microseconds.
    out.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0]));
    for (n, p) in packets.iter().enumerate() {
        let at = 1_700_000_000_000_000u64 + 10_000 * n as u64;
        let len = u32::try_from(p.len()).unwrap().to_le_bytes();
        let time = [(u32::try_from(at >> 32).unwrap()).to_le_bytes(), (at as u32).to_le_bytes()].concat();
        let pad = vec![0; (4 - p.len() % 4) % 4];
        out.extend(block(6, &[&[0, 0, 0, 0][..], &time, &len, &len, p, &pad].concat()));
    }
    out
}

fn script() -> Vec<Step> {
    let (i, o) = (Dialog::new("in", A, false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"));
    let single = Dialog::new("echo", A, false, "1000", "600");
    vec![
        i.request(Phone, "INVITE", 1, "", "offer"),
        o.request(Server, "INVITE", 1, "", "offer"),
        o.response(Phone, 200, "INVITE", 1, "", "answer"),
        i.response(Server, 200, "INVITE", 1, "", "answer"),
        i.request(Phone, "ACK", 1, "", ""),
        // Over long before it settles.
        single.request(Phone, "INVITE", 1, "", "offer"),
        single.response(Server, 200, "INVITE", 1, "", "answer"),
        single.request(Phone, "BYE", 2, "", ""),
        single.response(Server, 200, "BYE", 2, "", ""),
        o.request(Phone, "INFO", 1, "", ""),
    ]
}

fn run(bytes: &[u8], settings: &InspectSettings) -> Result<Report, InspectError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    inspect(file.path(), settings)
}

#[test]
fn every_link_type_gives_the_same_calls() {
    let packets = packets(&script());
    let vlan: &[u8] = &[0; 12];
    let vlan = [vlan, &[0x81, 0, 0, 5, 8, 0]].concat();
    let ethernet = [&[0u8; 12][..], &[8, 0]].concat();
    let sll = [&[0u8; 14][..], &[8, 0]].concat();
    let sll2 = [&[8u8, 0][..], &[0; 18]].concat();
    let files = [
        pcap(DataLink::ETHERNET, &ethernet, &packets),
        pcap(DataLink::ETHERNET, &vlan, &packets),
        pcap(DataLink::LINUX_SLL, &sll, &packets),
        pcap(DataLink::LINUX_SLL2, &sll2, &packets),
        pcap(DataLink::RAW, &[], &packets),
        pcap(DataLink::NULL, &[2, 0, 0, 0], &packets),
        pcapng(&packets),
    ];
    for (n, file) in files.iter().enumerate() {
        let r = run(file, &InspectSettings::default()).unwrap();
        assert_eq!((r.truncated.as_deref(), r.inferred, r.frames), (None, true, 10), "{n}");
        assert_eq!((r.vips.clone(), r.sip_ports.clone()), (vec!["10.0.0.100".parse().unwrap()], vec![5060]));
        assert_eq!((r.first_ms, r.last_ms), (Some(1_700_000_000_000), Some(1_700_000_000_090)));
        let [call, echo] = r.calls.as_slice() else { panic!("{n}: {r:?}") };
        assert_eq!((call.up, call.pairing, call.legs.len(), call.obstacles.len()), (true, Some(Pairing::Evidence), 2, 0));
        assert_eq!(call.legs[0].direction, Direction::Inbound);
        assert_eq!((call.legs[0].media_received[0].port, call.legs[0].media_received[0].kind.as_str()), (4000, "audio"));
        assert_eq!((echo.up, echo.ended, echo.pairing, echo.ended_ms), (false, Some("BYE"), None, Some(1_700_000_000_080)));
        assert_eq!(echo.obstacles.len(), 1);
        assert!(serde_json::to_string(&r).unwrap().contains("\"evidence\""));
    }
}

#[test]
fn a_truncated_file_gives_what_was_read_and_says_so() {
    for file in [pcap(DataLink::RAW, &[], &packets(&script())), pcapng(&packets(&script()))] {
        let r = run(&file[..file.len() - 7], &InspectSettings::default()).unwrap();
        assert_eq!((r.frames, r.calls.len()), (9, 2));
        assert!(r.truncated.unwrap().contains("after frame 9"));
    }
}

#[test]
fn what_is_no_capture_is_named() {
    let e = inspect(Path::new("/no/such/file"), &InspectSettings::default()).unwrap_err();
    assert!(e.to_string().contains("/no/such/file"));
    for bytes in [&b""[..], b"abc", b"hello world"] {
        assert!(matches!(run(bytes, &InspectSettings::default()), Err(InspectError::NotACapture { .. })));
    }
    assert!(matches!(run(&pcap(DataLink::RAW, &[], &[])[..12], &InspectSettings::default()), Err(InspectError::Header { .. })));
    let other = run(&pcap(DataLink::AX25, &[], &[]), &InspectSettings::default());
    assert!(matches!(other, Err(InspectError::LinkType { number: 3, .. })));
    assert_eq!(run(&pcap(DataLink::RAW, &[], &[]), &InspectSettings::default()).unwrap().calls, []);
}

#[test]
fn the_settings_name_the_server() {
    let file = pcap(DataLink::RAW, &[], &packets(&script()));
    let at = |vip: &str, port: u16| InspectSettings {
        vips: vec![vip.parse().unwrap()],
        sip_ports: vec![port],
        ..InspectSettings::default()
    };
    assert_eq!(run(&file, &at("10.0.0.100", 5060)).unwrap().calls.len(), 2);
    let none = run(&file, &at("10.0.0.100", 5090)).unwrap();
    assert_eq!((none.calls.len(), none.counters.foreign, none.inferred), (0, 10, false));
    // Seen from the callee, the server is the phone.
    assert_eq!(run(&file, &at("10.0.0.2", 5070)).unwrap().calls.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn damaged_files_never_panic(ng in any::<bool>(), edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8), cut in any::<u16>()) {
        let packets = packets(&script()[..4]);
        let mut bytes = if ng { pcapng(&packets) } else { pcap(DataLink::ETHERNET, &[0; 14], &packets) };
        for (at, byte) in edits {
            // The first bytes of blocks and records are where a reader believes too much.
            let at = usize::from(at) % if byte % 2 == 0 { 120 } else { bytes.len() };
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - usize::from(cut) % 40);
        let _ = run(&bytes, &InspectSettings::default());
    }
}
