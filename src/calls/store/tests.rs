use super::seal::NONCE;
use super::value::{Coder, Stamp, Trust};
use super::*;
use crate::calls::model::SCHEMA;
use crate::calls::table::script::{A, B, Dialog, Lab, Phone, Server};
use std::sync::LazyLock;

pub(super) fn a_call() -> Call {
    static CALL: LazyLock<Call> = LazyLock::new(|| {
        let mut lab = Lab::new();
        lab.b2bua(&Dialog::new("in", A, false, "1", "2"), &Dialog::new("out", B, true, "1", "2"));
        Call { id: "abc".into(), ..lab.calls().remove(0) }
    });
    CALL.clone()
}

fn coder(key: &[u8]) -> Coder {
    coder_of(Trust { cluster_key: key.to_vec(), accepted_keys: Vec::new(), encrypt: true, accept_plain: true })
}

fn coder_of(trust: Trust) -> Coder {
    Coder::new("c", "main", &trust)
}

const FIRST: Stamp = Stamp(5, 1);

/// Only the call of a decoded value.
fn decode(coder: &Coder, key: &str, value: &[u8]) -> Result<Call, BadValue> {
    coder.decode(key, value).map(|d| d.call)
}

fn json(c: &Call) -> Vec<u8> {
    serde_json::to_vec(c).unwrap()
}

#[test]
fn only_calls_that_belong_to_their_key_are_read() {
    let coder = coder(b"k");
    let good = a_call();
    let read = |key: &str, value: &[u8]| decode(&coder, &coder.key(key), value);
    assert_eq!(read("abc", &json(&good)), Ok(good.clone()));
    let newer = json(&Call { schema: SCHEMA + 2, ..good.clone() });
    let no_legs = Call { legs: Vec::new(), ..good.clone() };
    let elsewhere = Call { instance: "other".into(), ..good.clone() };
    let late = json(&Call { epoch: u64::MAX, ..good.clone() });
    let never = json(&Call { confirmed_ms: u64::MAX, ..good.clone() });
    let cases: [(&str, Vec<u8>, BadValue); 13] = [
        ("abc", late, BadValue::Content),
        ("abc", never, BadValue::Content),
        ("abd", json(&good), BadValue::Mismatch),
        ("abc", json(&elsewhere), BadValue::Mismatch),
        ("abc", newer, BadValue::Schema(SCHEMA + 2)),
        ("abc", br#"{"schema":99}"#.to_vec(), BadValue::Schema(99)),
        ("abc", br#"{"schema":2,"what":"ever"}"#.to_vec(), BadValue::Schema(2)),
        ("abc", json(&Call { schema: 0, ..good.clone() }), BadValue::Content),
        ("abc", json(&no_legs), BadValue::Content),
        ("abc", b"\xff{".to_vec(), BadValue::Content),
        ("abc", br#"{"schema":1}"#.to_vec(), BadValue::Content),
        ("", json(&good), BadValue::Key),
        ("a/b", json(&good), BadValue::Key),
    ];
    for (key, value, why) in cases {
        assert_eq!(read(key, &value), Err(why));
    }
    assert_eq!(decode(&coder, "elsewhere", &json(&good)), Err(BadValue::Key));
}

#[test]
fn what_the_first_version_wrote_is_read() {
    let old = include_str!("tests/first.json");
    let coder = coder(b"k");
    let call = decode(&coder, &coder.key("5d3f0b6c9a1e"), old.as_bytes()).unwrap();
    assert_eq!((call.schema, call.legs.len(), call.emergency), (SCHEMA, 2, false));
    let leg = &call.legs[1];
    assert!(leg.rtp_sources.is_empty() && !leg.partial && !leg.carried);
    assert_eq!(&*leg.local, b"\"\xff\" <sip:1@example.org>;tag=s2", "bytes that are no text");
    let again = decode(&coder, &coder.key("5d3f0b6c9a1e"), &json(&call)).unwrap();
    assert_eq!(again, call);
}

#[test]
fn a_sealed_call_opens_with_its_key_in_its_place_only() {
    let (ours, others) = (coder(&[7; 32]), coder(&[8; 32]));
    let call = a_call();
    let sealed = ours.encode(&call, FIRST, Some([1; NONCE])).unwrap();
    let place = ours.key("abc");
    let opened = ours.decode(&place, &sealed).unwrap();
    assert_eq!((opened.call, opened.stamp, opened.outdated), (call.clone(), Some(FIRST), false));
    assert_eq!(others.decode(&place, &sealed), Err(BadValue::OtherKey));
    assert_eq!(ours.decode(&ours.key("abd"), &sealed), Err(BadValue::Forged));
    let elsewhere = Coder::new(
        "c",
        "other",
        &Trust { cluster_key: vec![7; 32], accepted_keys: Vec::new(), encrypt: true, accept_plain: true },
    );
    assert_eq!(elsewhere.decode(&elsewhere.key("abc"), &sealed), Err(BadValue::Forged), "copied to another instance");
    let text = String::from_utf8(sealed.clone()).unwrap();
    assert!(!text.contains("example.org") && !text.contains(&call.legs[0].call_id.lossy()));
    // Every byte counts: after a change of one byte the value opens to the same call or not at all.
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(ours.decode(&place, &changed).is_err_and(|e| e != BadValue::Key), "byte {at}");
    }
    assert_ne!(ours.encode(&call, FIRST, Some([2; NONCE])), Some(sealed), "the nonce counts");
}

#[test]
fn what_is_not_encrypted_is_refused_unless_allowed_and_then_it_is_to_be_written_anew() {
    let trust = |encrypt, accept_plain| {
        coder_of(Trust { cluster_key: vec![7; 32], accepted_keys: Vec::new(), encrypt, accept_plain })
    };
    let (call, place) = (a_call(), trust(true, true).key("abc"));
    // As an older release writes it, and as an attacker would who knows of stamps.
    for plain in [json(&call), trust(false, true).encode(&call, FIRST, None).unwrap()] {
        assert_eq!(trust(true, false).decode(&place, &plain), Err(BadValue::Plain));
        let read = trust(true, true).decode(&place, &plain).unwrap();
        assert_eq!((read.call, read.stamp, read.outdated), (call.clone(), None, true));
        assert!(!trust(false, true).decode(&place, &plain).unwrap().outdated);
    }
    assert_eq!(trust(true, false).decode(&place, b"{}"), Err(BadValue::Content), "junk is called junk");
}

#[test]
fn while_the_key_is_changed_calls_under_the_former_one_open_and_are_to_be_written_anew() {
    let trust = |key: u8, accepted: &[u8]| {
        let accepted_keys = accepted.iter().map(|k| vec![*k; 32]).collect();
        coder_of(Trust { cluster_key: vec![key; 32], accepted_keys, encrypt: true, accept_plain: false })
    };
    let (former, both, next) = (trust(1, &[]), trust(2, &[9, 1]), trust(2, &[]));
    let (call, place) = (a_call(), former.key("abc"));
    let old = former.encode(&call, FIRST, Some([3; NONCE])).unwrap();
    assert!(both.decode(&place, &old).unwrap().outdated);
    let new = both.encode(&call, FIRST, Some([3; NONCE])).unwrap();
    assert!(!next.decode(&place, &new).unwrap().outdated);
    assert_eq!(next.decode(&place, &old), Err(BadValue::OtherKey));
}

#[test]
fn a_very_large_call_still_fits_a_transaction() {
    let mut call = a_call();
    // The worst that a phone can send: bytes that JSON expands to six characters each.
    for leg in &mut call.legs {
        let worst = |n: usize| crate::calls::model::Verbatim::from(vec![1; n]);
        let leg = &mut **leg;
        for body in [&mut leg.sdp_sent, &mut leg.sdp_received] {
            *body = Some(crate::calls::model::Sdp { body: worst(16 * 1024) });
        }
        for name in [&mut leg.call_id, &mut leg.local, &mut leg.remote, &mut leg.remote_target] {
            *name = worst(1024);
        }
    }
    let coder = coder(b"k");
    let value = coder.encode(&call, FIRST, Some([0; NONCE])).unwrap();
    assert!(value.len() < 1024 * 1024, "{} bytes", value.len());
    assert_eq!(decode(&coder, &coder.key("abc"), &value), Ok(call));
}

/// Operations that reach etcd if every message is written on its own. The worst case, without collecting.
fn writes(story: impl FnOnce(&mut dyn FnMut(&mut Lab))) -> usize {
    let (mut queue, mut writes) = (Queue::new(100), 0);
    queue.seen_all(std::iter::empty(), true);
    story(&mut |lab: &mut Lab| {
        lab.events().into_iter().for_each(|e| assert!(queue.push(e)));
        let batch = queue.take(usize::MAX, |_| true);
        writes += batch.len();
        queue.ended(batch, queue::End::Written);
    });
    writes
}

#[test]
fn an_ordinary_call_costs_at_most_six_writes() {
    let (i, o) = (Dialog::new("in", A, false, "1", "2"), Dialog::new("out", B, true, "1", "2"));
    let life = |refreshes: u32| {
        writes(|write| {
            let mut lab = Lab::new();
            for message in [
                i.request(Phone, "INVITE", 1, "", "offer"),
                i.response(Server, 100, "INVITE", 1, "", ""),
                o.request(Server, "INVITE", 1, "", "offer"),
                o.response(Phone, 180, "INVITE", 1, "", ""),
                i.response(Server, 180, "INVITE", 1, "", ""),
                o.response(Phone, 200, "INVITE", 1, "", "answer"),
                o.request(Server, "ACK", 1, "", ""),
                i.response(Server, 200, "INVITE", 1, "", "answer"),
                i.request(Phone, "ACK", 1, "", ""),
            ] {
                lab.see(message);
                write(&mut lab);
            }
            lab.wait_ms(5_000);
            write(&mut lab);
            for n in 0..refreshes {
                // Answered well before the collected changes are written.
                lab.see(i.request(Phone, "UPDATE", 2 + n, "", "")).see(i.response(
                    Server,
                    200,
                    "UPDATE",
                    2 + n,
                    "",
                    "",
                ));
                write(&mut lab);
            }
            for (by, other, d, n) in [(Phone, Server, &i, 2 + refreshes), (Server, Phone, &o, 2)] {
                lab.see(d.request(by, "BYE", n, "", ""));
                write(&mut lab);
                lab.see(d.response(other, 200, "BYE", n, "", ""));
                write(&mut lab);
            }
            lab.wait_ms(5_000);
            write(&mut lab);
        })
    };
    // A put when both legs are up, the delete, and between them at most one for the phone's BYE, one for its answer
    // (the other party does not know yet), and one for the server's BYE. Collected for 20 ms they are one, or none.
    assert!(life(0) <= 5, "{}", life(0));
    assert!(life(1) <= 6, "{}", life(1));
    assert_eq!(life(9) - life(1), 8, "one more for each further refresh");
}
