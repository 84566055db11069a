use super::above;

fn sdp(version: u64, way: &str) -> Vec<u8> {
    format!(
        "v=0\r\no=srv 7 {version} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na={way}\r\n"
    )
    .into_bytes()
}

#[test]
fn no_version_names_two_descriptions() {
    for (offer, spent, expected) in [
        ((6, "sendrecv"), None, 6),
        // The phone may have seen this version with other words.
        ((6, "sendrecv"), Some((6, "sendonly")), 7),
        ((5, "sendrecv"), Some((6, "sendonly")), 7),
        // The same words: the phone may have seen them, or sees them now.
        ((6, "sendonly"), Some((6, "sendonly")), 6),
        ((5, "sendonly"), Some((6, "sendonly")), 6),
        ((8, "sendrecv"), Some((6, "sendonly")), 8),
    ] {
        let spent = spent.map(|(version, way)| sdp(version, way));
        assert_eq!(above(sdp(offer.0, offer.1), spent.as_deref()), sdp(expected, offer.1), "{offer:?}");
    }
    assert_eq!(above(b"no description".to_vec(), Some(&sdp(1, "sendrecv"))), b"no description");
}
