//! Compressed files, bombs among them, and tunnels in fragments.

use super::build::{Hop, audio, ethernet, fragments, ip, paced, pcap};
use super::report::State;
use super::{InspectError, InspectSettings, build, only, run};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;

fn capture() -> Vec<u8> {
    let h = Hop::new("c", "10.0.0.1:5060", "10.0.0.100:5060", "1000", "2000");
    let (a, b) = (audio("10.0.0.1:4000", ""), audio("10.0.0.100:9000", ""));
    build::file(&paced([h.up(&a, &b), h.over(true, 2)].concat(), 100))
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn a_compressed_capture_is_read_like_any_other() {
    let settings = InspectSettings::default();
    let (plain, gz) = (run(&capture(), &settings).unwrap(), run(&packed(&capture()), &settings).unwrap());
    assert_eq!(gz, plain);
    assert_eq!(only(&gz).state, State::Ended);
    // Several of them joined with `cat`: gzip allows it, and pcap does.
    let half = capture().len() / 2;
    let joined = [packed(&capture()[..half]), packed(&capture()[half..])].concat();
    assert_eq!(run(&joined, &settings).unwrap(), plain);
    // A file that is cut off is read up to there.
    let gz = packed(&[capture(), vec![0x55; 10]].concat());
    let r = run(&gz[..gz.len() - 9], &settings).unwrap();
    assert!(r.truncated.is_some() && !r.calls.is_empty(), "{r:?}");
}

#[test]
fn what_does_not_unpack_to_a_capture_is_told() {
    let settings = InspectSettings::default();
    let text = run(&packed(b"no capture, but a text"), &settings).unwrap_err();
    assert!(matches!(text, InspectError::NotACapture { .. }), "{text}");
    let twice = run(&packed(&packed(&capture())), &settings).unwrap_err();
    assert!(twice.to_string().contains("gzip twice"), "{twice}");
    let empty = run(&packed(b""), &settings).unwrap_err();
    assert!(matches!(empty, InspectError::Empty { .. }), "{empty}");
    for broken in
        [&[0x1f, 0x8b][..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]]
    {
        let error = run(broken, &settings).unwrap_err();
        assert!(matches!(error, InspectError::Gzip { .. }), "{error}");
    }
}

#[test]
fn a_bomb_is_refused() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    // The header of a capture, then one record of 200 MB.
    gz.write_all(&capture()[..24]).unwrap();
    gz.write_all(&[[0; 8], [0xff, 0xff, 0xff, 0x0b, 0xff, 0xff, 0xff, 0x0b]].concat()).unwrap();
    for _ in 0..200 {
        gz.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = gz.finish().unwrap();
    let error = run(&bomb, &InspectSettings::default());
    // Fast compression makes a little less of zeros than the bound: then it is no bomb, and is read.
    if (200 << 20) / bomb.len() > 500 {
        assert!(matches!(&error, Err(InspectError::Bomb { .. })), "{error:?}");
        assert!(error.unwrap_err().to_string().contains("gunzip"));
    }
}

#[test]
fn a_tunnelled_packet_in_fragments_is_joined() {
    let h = Hop::new("c", "10.0.0.1:5060", "10.0.0.100:5060", "1000", "2000");
    let (a, b) = (audio("10.0.0.1:4000", ""), audio("10.0.0.100:9000", ""));
    let frames: Vec<(u64, Vec<u8>)> = paced([h.up(&a, &b), h.over(true, 2)].concat(), 100)
        .iter()
        .enumerate()
        .flat_map(|(n, shot)| {
            let inner = ip(shot);
            let length = u16::try_from(inner.len()).unwrap().to_be_bytes();
            let payload = [&[0x30, 0xff][..], &length, &[0, 0, 0, 1], &inner].concat();
            let (src, dst) = ("198.51.100.1:2152".parse().unwrap(), "198.51.100.2:2152".parse().unwrap());
            let mut outer = ip(&build::Shot { at: 0, src, dst, payload });
            outer[5] = u8::try_from(n).unwrap();
            fragments(&outer, 400).into_iter().map(move |f| (shot.at, ethernet(&[], &f)))
        })
        .collect();
    let r = run(&pcap(build::Kind { link: 1, ..build::RAW }, &frames), &InspectSettings::default()).unwrap();
    assert_eq!((only(&r).state, r.traffic.sip), (State::Ended, 7));
}
