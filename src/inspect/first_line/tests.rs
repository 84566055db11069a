use super::is_sip;

#[test]
fn sip_is_known_by_its_first_line_on_any_port() {
    for text in [
        "INVITE sip:a@b SIP/2.0\r\n\r\n",
        "SIP/2.0 200 OK\r\n",
        "\r\n\r\nBYE sip:a@b SIP/2.0\n",
        "NEWMETHOD tel:+1;a=b sip/2.0\r\n",
        "sip/2.0 180 Ringing\r\n",
    ] {
        assert!(is_sip(text.as_bytes()), "{text}");
    }
    for text in [
        "",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "INVITE sip:a@b SIP/2.0",
        "SIP/2.0",
        "invite sip:a SIP/2.0\r\n",
        "A SIP/2.0\n",
    ] {
        assert!(!is_sip(text.as_bytes()), "{text}");
    }
    assert!(!is_sip(&[b'A'; 60_000]));
    assert!(!is_sip(&[0x80, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
}
