use super::*;

fn body(lines: &[&str]) -> String {
    format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{}", lines.iter().map(|l| format!("m={l}\r\n")).collect::<String>())
}

/// The pairs of two legs: for each line, whether sent and received are in use.
fn paired(a: &[[&str; 2]], b: &[[&str; 2]]) -> Pairs {
    let text = |leg: &[[&str; 2]], side: usize| body(&leg.iter().map(|l| l[side]).collect::<Vec<_>>());
    let texts = [(text(a, 0), text(a, 1)), (text(b, 0), text(b, 1))];
    let ends = |(sent, received): &'static (String, String)| Ends {
        sent: Sdp::parse(sent.as_bytes()).unwrap(),
        received: Sdp::parse(received.as_bytes()).unwrap(),
    };
    let [a, b] = Box::leak(Box::new(texts));
    pairs(&ends(a), &ends(b))
}

const AUDIO: [&str; 2] = ["audio 1 RTP/AVP 0"; 2];
const SECURE: [&str; 2] = ["audio 1 RTP/SAVP 0"; 2];
const VIDEO: [&str; 2] = ["video 1 RTP/AVP 96"; 2];
const SLIDES: [&str; 2] = ["application 1 UDP/BFCP *"; 2];

/// The line as the server refused it, and as the phone did.
const fn refused(line: &'static str, off: &'static str) -> [[&'static str; 2]; 2] {
    [[off, line], [line, off]]
}

#[test]
fn lines_pair_by_kind_and_state() {
    for off in refused("audio 1 RTP/SAVP 0", "audio 0 RTP/SAVP 0") {
        // Optional encryption, with the refused line first.
        assert_eq!(paired(&[off, AUDIO], &[AUDIO]).used, [(1, 0)]);
        assert_eq!(paired(&[AUDIO], &[off, AUDIO]).used, [(0, 1)]);
        assert_eq!(paired(&[off, AUDIO], &[AUDIO, off]).used, [(1, 0)]);
        let nothing = paired(&[off], &[AUDIO]);
        assert!(nothing.used.is_empty() && !nothing.unlike_audio, "{nothing:?}");
    }
    for off in refused("video 1 RTP/AVP 96", "video 0 RTP/AVP 96") {
        assert_eq!(paired(&[off, AUDIO], &[AUDIO]).used, [(1, 0)]);
    }
    assert_eq!(paired(&[VIDEO, AUDIO], &[AUDIO, VIDEO]).used, [(0, 1), (1, 0)]);
    assert_eq!(paired(&[AUDIO, VIDEO, SLIDES], &[AUDIO, SLIDES]).used, [(0, 0), (2, 1)]);
    assert_eq!(paired(&[AUDIO, SLIDES, VIDEO], &[["AUDIO 1 RTP/AVP 0"; 2], VIDEO]).used, [(0, 0), (2, 1)]);
    assert_eq!(paired(&[AUDIO], &[SLIDES]).used, []);
}

#[test]
fn several_lines_of_a_kind_pair_in_order_or_not_at_all() {
    assert_eq!(paired(&[AUDIO, AUDIO], &[AUDIO, VIDEO, AUDIO]).used, [(0, 0), (1, 2)]);
    for (a, b) in [(&[AUDIO, AUDIO][..], &[AUDIO][..]), (&[AUDIO], &[SECURE, AUDIO])] {
        let pairs = paired(a, b);
        assert_eq!((pairs.used.len(), pairs.idle.len(), pairs.unlike_audio), (0, 0, true), "{a:?} {b:?}");
    }
    // Other kinds do without, and harm no audio.
    let pairs = paired(&[AUDIO, VIDEO, VIDEO], &[AUDIO, VIDEO]);
    assert_eq!((pairs.used, pairs.idle, pairs.unlike_audio), (vec![(0, 0)], Vec::new(), false));
}

#[test]
fn a_line_of_another_kind_in_the_answer_is_nobodys() {
    let odd = ["audio 1 RTP/AVP 0", "video 1 RTP/AVP 96"];
    assert_eq!(paired(&[odd], &[AUDIO]).used, []);
    assert_eq!(paired(&[odd, AUDIO], &[AUDIO]).used, [(1, 0)]);
}

#[test]
fn an_idle_line_keeps_its_place() {
    let off =
        |line: [&'static str; 2]| line.map(|_| if line == SECURE { "audio 0 RTP/SAVP 0" } else { "audio 0 RTP/AVP 0" });
    // Both held by port 0: the line that was used pairs by its profile.
    let pairs = paired(&[off(SECURE), off(AUDIO)], &[off(AUDIO)]);
    assert_eq!((pairs.partner(0, 1), pairs.partner(1, 0), pairs.partner(0, 0)), (Some(0), Some(1), None));
    // One phone holds by port 0, and its partner is still on.
    let pairs = paired(&[AUDIO], &[off(AUDIO)]);
    assert_eq!((pairs.used_partner(0, 0), pairs.partner(0, 0)), (None, Some(0)));
}

/// The agreed types of a line, as its answerer repeats it.
fn agreed(offer: &str, answer: &str) -> Vec<Codec> {
    let (offer, answer) = (body(&[offer]), body(&[answer]));
    let (offer, answer) = (Sdp::parse(offer.as_bytes()).unwrap(), Sdp::parse(answer.as_bytes()).unwrap());
    codec::agreed(&offer.media()[0], &answer.media()[0])
}

fn line(encoding: &str, fmtp: &str) -> String {
    let fmtp = if fmtp.is_empty() { String::new() } else { format!("\r\na=fmtp:96 {fmtp}") };
    format!("audio 1 RTP/AVP 96\r\na=rtpmap:96 {encoding}{fmtp}")
}

#[test]
fn parameters_count_where_packets_differ() {
    let of = |encoding: &str, fmtp: &str| agreed(&line(encoding, fmtp), &line(encoding, fmtp));
    for (encoding, a, b, same) in [
        ("AMR/8000", "octet-align=1", "octet-align=0", false),
        ("AMR/8000", "octet-align=0", "", true),
        ("AMR-WB/16000", "mode-set=0,1,2; OCTET-ALIGN=1", "octet-align=1;mode-set=8", true),
        ("AMR/8000", "octet-align=1; crc=1", "octet-align=1", false),
        ("amr-wb/16000/1", "robust-sorting=1", "interleaving=30", false),
        ("AMR/8000", "crc=1;octet-align=1", "crc=1", true),
        ("H264/90000", "profile-level-id=42e01f;packetization-mode=1", "profile-level-id=42e01f", false),
        ("H264/90000", "packetization-mode=0", "profile-level-id=42e01f", true),
        ("iLBC/8000", "mode=20", "mode=30", false),
        ("iLBC/8000", "mode=30", "", true),
        ("G7221/16000", "bitrate=32000", "bitrate=24000", false),
        ("opus/48000/2", "stereo=1;useinbandfec=1", "stereo=0", true),
        ("G729/8000", "annexb=no", "", true),
    ] {
        let (a, b) = (of(encoding, a), of(encoding, b));
        assert_eq!((a.len(), b.len(), a == b), (1, 1, same), "{encoding}: {a:?} {b:?}");
    }
}

#[test]
fn a_leg_that_contradicts_itself_has_agreed_on_nothing() {
    let sides =
        |encoding: &str, offer: &str, answer: &str| agreed(&line(encoding, offer), &line(encoding, answer)).len();
    assert_eq!(sides("AMR/8000", "octet-align=1", "octet-align=0"), 0);
    assert_eq!(sides("G7221/16000", "bitrate=32000", "bitrate=24000"), 0);
    assert_eq!(sides("G7221/16000", "bitrate=32000", ""), 1);
    // RFC 3952 section 5: then both send 30 ms.
    assert_eq!(
        agreed(&line("iLBC/8000", "mode=20"), &line("iLBC/8000", "")),
        agreed(&line("iLBC/8000", ""), &line("iLBC/8000", ""))
    );
}
