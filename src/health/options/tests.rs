use super::{Options, accepts, answer};
use crate::config::SipOptions;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

const LONG: Duration = Duration::from_secs(60);

fn options(target: SocketAddr, codes: &[&str]) -> Options {
    Options::new(&SipOptions { target, uri: None, codes: codes.iter().map(|c| (*c).to_owned()).collect() })
}

/// The response to `request` with its Via, From, To, Call-ID and CSeq copied, as RFC 3261 section 8.2.6.2 requires.
fn respond(request: &str, status: &str) -> String {
    let keep = |l: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|h| l.starts_with(h));
    let copied: Vec<&str> = request.split("\r\n").filter(keep).collect();
    format!("SIP/2.0 {status}\r\n{}\r\nContent-Length: 0\r\n\r\n", copied.join("\r\n"))
}

/// A server that passes each request, as text, to `reply`, and sends what `reply` returns.
async fn server(reply: impl Fn(usize, &str) -> Vec<String> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        for n in 0.. {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in reply(n, std::str::from_utf8(&buffer[..length]).unwrap()) {
                socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_200_is_good_and_a_503_is_not_unless_it_is_expected() {
    let target = server(|_, r| vec![respond(r, if r.contains("CSeq: 1 ") { "200 OK" } else { "503 Busy" })]).await;
    let mut check = options(target, &["2XX"]);
    let good = check.probe(LONG).await;
    assert!(good.ok && good.detail == "200 OK", "{good:?}");
    let bad = check.probe(LONG).await;
    assert!(!bad.ok && bad.detail == "answered 503 Busy", "{bad:?}");
    let target = server(|_, r| vec![respond(r, "503 Busy")]).await;
    assert!(options(target, &["404", "503"]).probe(LONG).await.ok);
}

#[tokio::test]
async fn answers_to_another_branch_or_cseq_and_garbage_are_counted_and_ignored() {
    let target = server(|_, r| {
        let other = respond(r, "500 Wrong").replace("z9hG4bK", "z9hG4bKx");
        let cseq = respond(r, "500 Wrong").replace("CSeq: 1 ", "CSeq: 77 ");
        let method = respond(r, "500 Wrong").replace("1 OPTIONS", "1 INVITE");
        vec!["\0\u{1}garbage".to_owned(), String::new(), other, cseq, method, respond(r, "200 OK")]
    })
    .await;
    let mut check = options(target, &["2xx"]);
    assert!(check.probe(LONG).await.ok);
    assert_eq!(check.counters().ignored, 5);
}

#[tokio::test]
async fn a_lost_request_is_sent_again_with_the_same_branch() {
    let first = std::sync::Mutex::new(String::new());
    let target = server(move |n, r| {
        let mut first = first.lock().unwrap();
        if n == 0 {
            r.clone_into(&mut first);
            return Vec::new();
        }
        vec![respond(r, if *first == r { "200 OK" } else { "500 Other request" })]
    })
    .await;
    let mut check = options(target, &["2xx"]);
    let probe = check.probe(LONG).await;
    assert!(probe.ok, "{probe:?}");
    assert!(probe.took_ms >= 240, "the retransmission comes after T1: {probe:?}");
    assert!(check.counters().sent == 1 && check.counters().retransmitted >= 1, "{:?}", check.counters());
}

#[tokio::test]
async fn each_probe_is_a_transaction_of_its_own() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let target = server(move |_, r| {
        let mut log = log.lock().unwrap();
        // On a busy machine the request may go out twice.
        if log.last().is_none_or(|l| l != r) {
            log.push(r.to_owned());
        }
        vec![respond(r, "200 OK")]
    })
    .await;
    let mut check = options(target, &["2xx"]);
    for _ in 0..2 {
        assert!(check.probe(LONG).await.ok);
    }
    let seen = seen.lock().unwrap();
    let line = |r: &str, name: &str| r.split("\r\n").find(|l| l.starts_with(name)).unwrap().to_owned();
    assert_ne!(line(&seen[0], "Via:"), line(&seen[1], "Via:"));
    assert_eq!(
        (line(&seen[0], "CSeq:"), line(&seen[1], "CSeq:")),
        ("CSeq: 1 OPTIONS".to_owned(), "CSeq: 2 OPTIONS".to_owned())
    );
    assert!(
        seen[0].starts_with(&format!("OPTIONS sip:keepcall@{target} SIP/2.0\r\n")) && seen[0].ends_with("\r\n\r\n")
    );
}

#[tokio::test]
async fn a_silent_server_fails_at_the_timeout_and_a_provisional_answer_is_none() {
    let silent = server(|_, _| Vec::new()).await;
    let started = Instant::now();
    let probe = options(silent, &["2xx"]).probe(Duration::from_millis(120)).await;
    assert!(!probe.ok && probe.detail.contains("no answer") && probe.detail.contains("120ms"), "{probe:?}");
    assert!(started.elapsed() >= Duration::from_millis(120));
    let trying = server(|_, r| vec![respond(r, "100 Trying")]).await;
    // If the provisional answer comes too late, as on a busy machine, the request is retransmitted; try again.
    let end = Instant::now() + LONG;
    loop {
        let mut check = options(trying, &["1xx", "2xx"]);
        let probe = check.probe(Duration::from_millis(400)).await;
        assert!(!probe.ok && Instant::now() < end, "{probe:?}");
        if probe.detail.contains("no final answer") && check.counters().retransmitted == 0 {
            break;
        }
    }
}

#[tokio::test]
async fn a_closed_port_fails_at_once_and_recovers_when_the_server_is_there() {
    let target = {
        // On an address where no other test takes ports, so that the port is free again below.
        let socket = UdpSocket::bind("127.61.44.7:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let mut check = options(target, &["2xx"]);
    let started = Instant::now();
    let probe = check.probe(LONG).await;
    assert!(!probe.ok && probe.detail.contains("port unreachable"), "{probe:?}");
    assert!(started.elapsed() < LONG / 2, "it must not wait for the timeout");
    let socket = UdpSocket::bind(target).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket
            .send_to(respond(std::str::from_utf8(&buffer[..length]).unwrap(), "200 OK").as_bytes(), from)
            .await
            .unwrap();
    });
    assert!(check.probe(LONG).await.ok);
}

#[test]
fn only_matching_responses_are_answers() {
    let good = "SIP/2.0 200 OK\nv : SIP/2.0/UDP h ; rport=1;BRANCH=z9hG4bKabc\ncseq:  5  OPTIONS\n\n";
    assert_eq!(answer(good.as_bytes(), "z9hG4bKabc", 5), Some((200, "OK".to_owned())));
    assert_eq!(answer(good.as_bytes(), "z9hG4bKabd", 5), None);
    for bad in [
        "",
        "SIP/2.0",
        "SIP/2.0 2000 OK\n\n",
        "SIP/2.0 099 X\n\n",
        "SIP/2.0 200 OK\r\n\r\n",
        "OPTIONS sip:a SIP/2.0\r\n\r\n",
    ] {
        assert_eq!(answer(bad.as_bytes(), "z9hG4bKabc", 5), None, "{bad:?}");
    }
}

#[test]
fn patterns_are_codes_or_classes() {
    assert!(accepts("200", 200) && !accepts("200", 202) && accepts("4xx", 404) && !accepts("4xx", 500));
}
