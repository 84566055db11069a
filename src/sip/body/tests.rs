use super::*;
use proptest::prelude::*;

fn message(kind: &str, body: &str) -> String {
    format!("INVITE sip:h SIP/2.0\r\ni: c\r\nf: <sip:a>;tag=1\r\nt: <sip:b>\r\nCSeq: 1 INVITE\r\n{kind}\r\n{body}")
}

fn of(kind: &str, body: &str) -> Option<String> {
    match description(&Message::parse(message(kind, body).as_bytes()).unwrap()) {
        Description::Sdp(b) => Some(String::from_utf8_lossy(b).into_owned()),
        Description::None => None,
        Description::Unreadable => Some("unreadable".to_owned()),
    }
}

#[test]
fn finds_a_plain_description() {
    for kind in [
        "c: Application/SDP;x=y\r\n",
        "Content-Type: application / sdp\r\n",
        "c:application/sdp\r\nContent-Disposition: session\r\n",
        "",
    ] {
        assert_eq!(of(kind, "v=0\r\n").as_deref(), Some("v=0\r\n"), "{kind}");
        assert_eq!(of(kind, "\r\nv=0\r\n").as_deref(), Some("v=0\r\n"), "{kind}");
    }
    for kind in [
        "c: text/plain\r\n",
        "c: application/sdpx\r\n",
        "c: application/sdp\r\nContent-Disposition: early-session;handling=optional\r\n",
        "c: sdp\r\n",
    ] {
        assert_eq!(of(kind, "v=0\r\n"), None, "{kind}");
    }
    assert_eq!(of("c: application/sdp\r\n", ""), None);
}

const MIXED: &str = "Content-Type: multipart/mixed; boundary=\"xx\"\r\n";

#[test]
fn finds_a_description_among_other_parts() {
    let isup = "--xx\r\nContent-Type: application/isup\r\n\r\n\x01 --xx v=0\r\n--xxx\r\n";
    let multi = format!("{isup}--xx\r\nContent-type: application/SDP\r\n\r\nv=0\r\n--xx--\r\n");
    assert_eq!(of(MIXED, &multi).as_deref(), Some("v=0\r\n"));
    assert_eq!(of(MIXED, &multi.replace("\r\n", "\n")).as_deref(), Some("v=0\n"));
    assert_eq!(
        of(MIXED, &multi.replace("v=0\r\n", "v=0\r\n\r\n")).as_deref(),
        Some("v=0\r\n"),
        "the boundary's own line end"
    );
    assert_eq!(of(MIXED, &multi.replace("--xx--\r\n", "")).as_deref(), Some("v=0\r\n"), "cut before the last boundary");
    assert_eq!(of("Content-Type: multipart/mixed\r\n", &multi), None, "no boundary is named");
    assert_eq!(of(MIXED, isup), None);
    assert_eq!(of(MIXED, "--xx--\r\nc: application/sdp\r\n\r\nv=0\r\n"), None, "behind the end");
}

#[test]
fn looks_into_alternatives_and_past_early_sessions() {
    let inner = "--in\r\nc: application/sdp\r\ncontent-disposition: Early-Session\r\n\r\nv=0\r\ns=early\r\n--in\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=it\r\n--in--\r\n";
    let outer = format!("preamble\r\n--xx\r\nContent-Type: multipart/alternative;boundary=in\r\n\r\n{inner}\r\n--xx--");
    assert_eq!(of(MIXED, &outer).as_deref(), Some("v=0\r\ns=it\r\n"));
    let mut deep = "v=0\r\n".to_owned();
    let mut kind = "application/sdp".to_owned();
    for b in 0..5 {
        deep = format!("--{b}\r\nContent-Type: {kind}\r\n\r\n{deep}\r\n--{b}--\r\n");
        kind = format!("multipart/mixed;boundary={b}");
    }
    assert_eq!(of(&format!("c: {kind}\r\n"), &deep), None, "too deep");
}

#[test]
fn a_huge_or_coded_description_is_unreadable() {
    for body in ["\x1f\u{8b}zip".to_owned(), format!("v={}", "0".repeat(MAX_SDP))] {
        assert_eq!(of("c: application/sdp\r\n", &body).as_deref(), Some("unreadable"));
    }
}

proptest! {
    #[test]
    fn what_is_found_is_a_part_of_the_body(edits in proptest::collection::vec((any::<u16>(), proptest::sample::select(b"-\r\n:/;=\"x \0".to_vec())), 0..10)) {
        let mut bytes = message(MIXED, "--xx\r\nc: a/b\r\n\r\nq\r\n--xx\r\nc: application/sdp\r\n\r\nv=0\r\n\r\n--xx--\r\n").into_bytes();
        for (at, byte) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(m) = Message::parse(&bytes)
            && let Description::Sdp(sdp) = description(&m)
        {
            prop_assert!(sdp.starts_with(b"v=") && memmem::find(m.body(), sdp).is_some());
        }
    }
}
