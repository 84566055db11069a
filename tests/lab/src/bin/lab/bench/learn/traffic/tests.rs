use super::super::memory::learn;
use super::*;
use keepcall::sip::message::Message;

fn some(calls: usize) -> Traffic {
    Traffic::new(&Plan { calls, up: 20, hold: Duration::from_secs(60), places: Places::wide() })
}

#[test]
fn all_calls_are_learnt_and_paired() {
    let traffic = some(100);
    let learnt = learn(&traffic).unwrap();
    learnt.check(&traffic).unwrap();
    // Confirmed, and refreshed.
    assert!(learnt.puts >= 2 * traffic.calls, "{} changes", learnt.puts);
}

#[test]
fn the_mix_is_what_it_is_said_to_be() {
    let traffic = some(100);
    let (mut noise, mut invites, mut ids) = (0, Vec::new(), std::collections::HashSet::new());
    let mut last = Duration::ZERO;
    for (sent, bytes) in traffic.messages() {
        assert!(sent.at >= last && bytes.len() <= LARGEST);
        last = sent.at;
        let m = Message::parse(bytes).unwrap();
        assert!(m.is_whole());
        ids.insert(m.call_id().to_vec());
        noise += usize::from(matches!(m.cseq().1, b"REGISTER" | b"OPTIONS"));
        if bytes.starts_with(b"INVITE ") {
            invites.push(bytes.len());
        }
    }
    let share = noise as f64 / traffic.len() as f64;
    assert!((0.28..=0.30).contains(&share), "{share} of the messages belong to no call");
    assert_eq!(ids.len(), traffic.call_ids);
    let (least, most) = (invites.iter().min().unwrap(), invites.iter().max().unwrap());
    assert!(*least >= 900 && *most <= LARGEST, "INVITEs have {least} to {most} bytes");
}

#[test]
fn as_many_calls_are_up_as_was_asked_for() {
    let traffic = some(100);
    let (mut up, mut most) = (0_i32, 0);
    for (_, bytes) in traffic.messages() {
        let m = Message::parse(bytes).unwrap();
        // The inbound leg's Call-ID names an address.
        if m.code() == Some(200) && memchr::memchr(b'@', m.call_id()).is_some() {
            match m.cseq().1 {
                b"INVITE" => up += 1,
                b"BYE" => up -= 1,
                _ => {}
            }
        }
        most = most.max(up);
    }
    assert!((20..=21).contains(&most), "{most} calls were up at a time");
    assert_eq!(up, 0);
}
