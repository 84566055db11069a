//! Real agents, a real Asterisk and established calls, while everything that can be sent or written wrong is: nothing
//! is lost.

use lab::asterisk::Asterisk;
use lab::calls::{Calls, ended, has_audio, is_reinvited};
use lab::lan::{Host, Lan, VIP4};
use lab::node::{self, Agent, Member, Node, SOON};
use lab::phone::Manner;
use lab::{unix_us, wait};
use std::net::UdpSocket;
use std::time::Duration;

const CALLS: usize = 3;
const AUDIO: Duration = Duration::from_secs(60);

/// Pseudo-random numbers, the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

const INVITE: &[u8] = b"INVITE sip:1000@10.44.0.100 SIP/2.0\r\nVia: SIP/2.0/UDP 10.44.0.30:5060;branch=z9hG4bKnoise\r\n\
From: <sip:x@10.44.0.30>;tag=1\r\nTo: <sip:1000@10.44.0.100>\r\nCall-ID: noise\r\nCSeq: 1 INVITE\r\nContact: <sip:x@10.44.0.30>\r\n\
Content-Type: application/sdp\r\nContent-Length: 99\r\n\r\nv=0\r\no=- 1 1 IN IP4 10.44.0.30\r\ns=-\r\nc=IN IP4 10.44.0.30\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

/// Random bytes, cut messages and messages with changed bytes, to the SIP port, the recovery port and the heartbeat
/// ports.
fn make_noise(from: &Host, to: &[String], rounds: usize) {
    let to = to.to_vec();
    from.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut noise = Noise(0x1234_5678_9abc_def1);
        for round in 0..rounds {
            for target in &to {
                let datagram = match round % 4 {
                    0 => {
                        let n = noise.below(1400);
                        noise.bytes(n)
                    }
                    1 => INVITE[..noise.below(INVITE.len())].to_vec(),
                    2 => {
                        let mut m = INVITE.to_vec();
                        for _ in 0..8 {
                            let at = noise.below(m.len());
                            m[at] = noise.next().to_be_bytes()[0];
                        }
                        m
                    }
                    _ => {
                        let n = noise.below(200);
                        let mut m = b"kc\x01\x00".to_vec();
                        m.extend(noise.bytes(n));
                        m
                    }
                };
                // A refused port answers with ICMP, and a later send reports it; that does not matter here.
                let _ = socket.send_to(&datagram, target.as_str());
            }
        }
        // The shortest and the longest datagram.
        for target in &to {
            let _ = socket.send_to(b"", target.as_str());
            let _ = socket.send_to(&noise.bytes(65_000), target.as_str());
        }
        Ok(())
    })
    .unwrap();
}

fn knows(agent: &Agent, calls: usize) {
    agent.comes_to("the calls to be known", |s| s["instances"][0]["calls"]["stored"] == calls);
}

fn in_etcd(etcd: &Member) -> Vec<String> {
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", &node::path("instances/sip/calls/")]);
    keys.lines().filter_map(|l| l.rsplit_once('/')).map(|(_, id)| id.to_owned()).collect()
}

#[test]
fn calls_outlive_noise_and_spoilt_keys() {
    let lan = Lan::new().unwrap();
    let rt = tokio::runtime::Runtime::new().unwrap();
    let hosts = [lan.host("a").unwrap(), lan.host("b").unwrap()];
    let mut servers = hosts.map(|h| Asterisk::start(&lan, h).unwrap());
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    for s in &mut servers {
        s.wait_ready().unwrap();
    }
    let [mut a, b] = hosts.map(|h| Node::new(h, &h.name, &etcd.url()).with_sip().start());
    let a_leads = wait::until("one to be master and the other armed", SOON, || {
        for (agent, other, leads) in [(&a, "b", true), (&b, "a", false)] {
            let s = agent.status()?;
            if s["instances"][0]["role"] == "master" && s["instances"][0]["successor"] == other {
                return Ok(leads);
            }
        }
        Err("neither is".to_owned())
    })
    .unwrap();
    if !a_leads {
        let (code, out, err) = b.node.run(&["switchover", "--yes"]);
        assert_eq!(code, 0, "{out}{err}");
        a.is_armed("b");
    }
    let calls = Calls::new(&lan, &rt, CALLS, Manner::default()).unwrap();
    calls.set_up(SOON).unwrap();
    knows(&a, CALLS);
    knows(&b, CALLS);
    let ids = in_etcd(&etcd);

    let targets: Vec<String> = [
        format!("{VIP4}:5060"),
        format!("{VIP4}:5070"),
        format!("{}:7490", hosts[0].ip4),
        format!("{}:7490", hosts[1].ip4),
    ]
    .into();
    make_noise(lan.host("obs").unwrap(), &targets, 400);
    let since = unix_us();
    assert!(a.is_alive());
    a.says("heartbeat refused");
    a.is_armed("b");

    // Calls spoiled or deleted in etcd are stored again; the others stay as they are.
    etcd.put(&format!("instances/sip/calls/{}", ids[0]), "nonsense");
    etcd.ctl(&["del", &node::path(&format!("instances/sip/calls/{}", ids[1]))]);
    etcd.put("instances/sip/calls/nonsense", "nonsense");
    let whole = |id: &String| {
        let value = etcd.get(&format!("instances/sip/calls/{id}")).unwrap_or_default();
        if value.contains("\"sealed\"") { Ok(()) } else { Err(format!("{id}: {value:.100}")) }
    };
    wait::until("the calls to be whole again", SOON, || ids.iter().try_for_each(whole)).unwrap();
    a.says("storing the call again");
    // So is the writer's key: a call changed after that is written again.
    etcd.put("instances/sip/writer", "nonsense");
    etcd.ctl(&["del", &node::path(&format!("instances/sip/calls/{}", ids[2]))]);
    wait::until("the calls to be whole again", SOON, || ids.iter().try_for_each(whole)).unwrap();
    etcd.ctl(&["del", &node::path("instances/sip/calls/nonsense")]);
    assert_eq!(calls.wait_for(AUDIO, |c| has_audio(c, since)), CALLS);
    knows(&b, CALLS);

    // The backup's firewall is reloaded just before it is needed.
    b.node.host.exec(&["nft", "flush", "ruleset"]).unwrap();
    b.says("another program deleted");
    let at = unix_us();
    lan.cut("a").unwrap();
    b.is_master();
    // Noise again, while the agent itself recovers and carries the calls.
    make_noise(lan.host("obs").unwrap(), &targets, 200);
    assert_eq!(
        calls.wait_for(AUDIO, |c| has_audio(c, at + 1_000_000) && is_reinvited(c, at)),
        CALLS,
        "{}\n{}",
        b.log(),
        calls.violations().join("\n")
    );
    b.node.host.exec(&["nft", "flush", "ruleset"]).unwrap();
    let since = unix_us();
    // A carried call deleted in etcd is also put back.
    etcd.ctl(&["del", "--prefix", &node::path("instances/sip/calls/")]);
    wait::until("the calls to be whole again", SOON, || ids.iter().try_for_each(whole)).unwrap();
    assert_eq!(calls.wait_for(AUDIO, |c| has_audio(c, since + 1_000_000)), CALLS, "{}", b.log());
    let (code, out, _) = b.node.run(&["calls"]);
    assert!(code == 0 && out.matches("carried").count() == CALLS, "{out}");
    println!("{out}\n{}\n{}", b.node.run(&["history"]).1, b.node.run(&["status"]).1);
    b.is_calm();
    assert_eq!(calls.hang_up(SOON).unwrap(), CALLS);
    assert_eq!(calls.wait_for(SOON, ended), CALLS);
    wait::until("etcd to hold no call", SOON, || match in_etcd(&etcd) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    })
    .unwrap();
    assert_eq!(calls.violations(), Vec::<String>::new());
    for agent in [&a, &b] {
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
    }
}
