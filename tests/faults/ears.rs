//! Faults in the listeners to the server (HEP, AMI, ESL), a recovery that never returns, and a kernel that refuses
//! holds. Role and address stay, or go to the right node. Needs the cargo feature `faults`, see `src/faults.rs`.

use lab::asterisk::{Asterisk, Extra};
use lab::calls::Calls;
use lab::lan::{Host, Lan, VIP4, VIP6};
use lab::node::{Agent, Member, Node, SOON, secret};
use lab::phone::Manner;
use lab::witness::Witness;
use lab::{unix_us, wait};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Longest silence the witness may see while the machine is busy; a move of the address takes a hold, which is five
/// times as long.
const SILENCE_US: u64 = 400_000;

fn node(lan: &Lan, name: &str, etcd: &Member) -> Node {
    let both = format!("\"{VIP4}/24\", \"{VIP6}/64\"");
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).with(&format!("\"{VIP4}/24\""), &both)
}

/// Starts the agent with these faults, each triggered by a file of its name.
fn start(node: &Node, faults: &[&str]) -> Agent {
    let all: Vec<String> = faults.iter().map(|f| format!("{f}@{}", file(node, f))).collect();
    node.start_by(&["env", &format!("KEEPCALL_FAULT={}", all.join(","))])
}

fn file(node: &Node, fault: &str) -> String {
    node.dir.join(fault.replace(':', "-")).display().to_string()
}

fn part(status: &Value) -> &Value {
    status["parts"].as_array().into_iter().flatten().find(|p| p["name"] == "calls of sip").unwrap_or(&Value::Null)
}

fn is_master(status: &Value, epoch: &Value) -> bool {
    status["instances"][0]["role"] == "master" && status["instances"][0]["epoch"] == *epoch
}

/// Triggers the fault until the part has restarted `n` times for it; `stir` causes events, if the fault needs some.
fn fails(agent: &Agent, fault: &str, why: &str, n: u32, stir: impl Fn()) {
    let epoch = agent.status().unwrap()["instances"][0]["epoch"].clone();
    let at = unix_us();
    std::fs::write(file(&agent.node, fault), "").unwrap();
    let status = agent.comes_to(&format!("the part to come back after {fault}"), |s| {
        assert!(is_master(s, &epoch), "{s}\n{}", agent.log());
        stir();
        part(s)["restarts"] == n && part(s)["state"] == "running"
    });
    println!("{fault}: seen again after {} ms", (unix_us() - at) / 1000);
    assert!(part(&status)["why"].as_str().unwrap().contains(why), "{status}");
    let (_, text, _) = agent.node.run(&["status"]);
    assert!(text.contains(&format!("calls of sip: running, restarted {n} time")), "{text}");
}

fn is_connected(agent: &Agent, protocol: &str) {
    agent.comes_to("the server to tell", |s| {
        let server = &s["instances"][0]["server"];
        server["protocol"] == protocol && server["connected"] == true
    });
}

fn was_held(witness: &Witness, since: u64) {
    let seen = witness.finding(since);
    println!("longest silence of the address: {} us in {} ms; {:?}", seen.silence_us, seen.asked, seen.owners);
    assert!(seen.silence_us < SILENCE_US && seen.two_hosts_ms == 0 && seen.owners.len() == 1, "{seen:?}");
}

#[test]
fn panics_in_hep_and_ami_cost_neither_address_nor_calls() {
    const CALLS: usize = 2;
    let lan = Lan::new().unwrap();
    let rt = tokio::runtime::Runtime::new().unwrap();
    let manager =
        "[general]\nenabled=yes\nbindaddr=127.0.0.1\n[keepcall]\nsecret=a secret\nread=call\nwrite=reporting\n";
    let extra = Extra { files: vec![("manager.conf", manager.to_owned())], ..Extra::default() };
    let mut server = Asterisk::start_with(&lan, lan.host("a").unwrap(), extra).unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    server.wait_ready().unwrap();
    let mut a = node(&lan, "a", &etcd).with_sip();
    let ami = a.dir.join("ami");
    secret(&ami, "a secret\n");
    a.config.push_str(&format!(
        "[instance.sip.hep]\nlisten = [\"udp:127.0.0.1:9060\"]\n[instance.sip.ami]\naddress = \"127.0.0.1:5038\"\nuser = \"keepcall\"\nsecret_file = {ami:?}\n"
    ));
    let agent = start(&a, &["hep:panic", "ami:panic"]);
    agent.is_master();
    is_connected(&agent, "ami");
    let calls = Calls::new(&lan, &rt, CALLS, Manner::default()).unwrap();
    calls.set_up(SOON).unwrap();
    let knows = || agent.comes_to("the calls to be known", |s| s["instances"][0]["calls"]["tracked"] == CALLS);
    knows();
    let witness = Witness::start(lan.host("obs").unwrap(), &[&a.host]).unwrap();
    wait::until("the address to answer", SOON, || witness.sole_owner(Duration::from_millis(100))).unwrap();

    let since = unix_us();
    let reporter = a.host.enter(|| Ok(UdpSocket::bind("127.0.0.1:0")?)).unwrap();
    let report = || assert_eq!(reporter.send_to(b"HEP3", "127.0.0.1:9060").unwrap(), 4);
    fails(&agent, "hep:panic", "src/hep/listener", 1, report);
    knows();
    is_connected(&agent, "ami");
    // The server's next message triggers it; the agent asks the server something every ten seconds.
    fails(&agent, "ami:panic", "src/pbx/driver", 2, || {});
    knows();
    is_connected(&agent, "ami");
    // HEP is received again.
    let hep = |s: &Value| s["instances"][0]["calls"]["hep"]["malformed"].as_u64();
    agent.comes_to("HEP to be listened to", |s| {
        report();
        hep(s) > Some(0)
    });
    was_held(&witness, since);
    assert_eq!(calls.hang_up(SOON).unwrap(), CALLS);
    agent.comes_to("the end of the calls to be seen", |s| s["instances"][0]["calls"]["stored"] == 0);
    assert_eq!(calls.violations(), Vec::<String>::new());
}

/// The event socket of a server without calls, with an event now and then.
fn event_socket(host: &Host) {
    let socket = host.enter(|| Ok(TcpListener::bind("127.0.0.1:8021")?)).unwrap();
    // The thread ends with the process, as the connections do.
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            std::thread::spawn(move || tell(stream));
        }
    });
}

fn tell(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.write_all(b"Content-Type: auth/request\n\n")?;
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => said.push_str(&String::from_utf8_lossy(&buffer[..n])),
            Err(_) => stream.write_all(b"Content-Type: text/event-plain\nContent-Length: 0\n\n")?,
        }
        while let Some((command, rest)) = said.split_once("\n\n") {
            let answer: &[u8] = if command.starts_with("api") {
                b"Content-Type: api/response\nContent-Length: 2\n\n{}"
            } else {
                b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
            };
            stream.write_all(answer)?;
            said = rest.to_owned();
        }
    }
}

#[test]
fn a_panic_in_esl_and_a_recovery_that_never_comes_back_leave_the_address() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let mut a = node(&lan, "a", &etcd).with_sip();
    let password = a.dir.join("esl");
    secret(&password, "ClueCon\n");
    a.config.push_str(&format!("[instance.sip.esl]\naddress = \"127.0.0.1:8021\"\npassword_file = {password:?}\n"));
    let agent = start(&a, &["esl:panic", "recovery:loop"]);
    agent.is_master();
    let witness = Witness::start(lan.host("obs").unwrap(), &[&a.host]).unwrap();
    wait::until("the address to answer", SOON, || witness.sole_owner(Duration::from_millis(100))).unwrap();
    event_socket(&a.host);
    is_connected(&agent, "esl");
    let since = unix_us();
    fails(&agent, "esl:panic", "src/pbx/driver", 1, || {});
    is_connected(&agent, "esl");

    let epoch = agent.status().unwrap()["instances"][0]["epoch"].clone();
    std::fs::write(file(&a, "recovery:loop"), "").unwrap();
    // Status reports the length of the stall long before the watchdog gives up.
    let status = agent.comes_to("the stall to be told", |s| {
        assert!(is_master(s, &epoch), "{s}\n{}", agent.log());
        part(s)["restarts"] == 1 && part(s)["longest_stall_ms"].as_u64() >= Some(3000)
    });
    println!("{}", part(&status));
    fails(&agent, "recovery:loop", "recovery was stuck for 10s", 2, || {});
    // That stall belonged to the run before.
    agent.comes_to("the new run to come back", |s| part(s)["longest_stall_ms"].as_u64() < Some(3000));
    was_held(&witness, since);
}

#[test]
fn a_kernel_that_takes_no_hold_is_told_repaired_and_handed_over() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (node(&lan, "a", &etcd), node(&lan, "b", &etcd));
    let first = start(&a, &["lease:refuse"]);
    first.is_master();
    let epoch = first.status().unwrap()["instances"][0]["epoch"].clone();
    let witness = Witness::start(lan.host("obs").unwrap(), &[&a.host, &b.host]).unwrap();
    wait::until("the address to answer", SOON, || witness.sole_owner(Duration::from_millis(100))).unwrap();
    let trouble = |s: &Value, what: &str| s["instances"][0]["reason"].as_str().is_some_and(|r| r.contains(what));
    let silent = || {
        witness.sole_owner(Duration::from_millis(300)).map_or_else(|_| Ok(()), |owner| Err(format!("{owner} answers")))
    };

    // Without another node it stays master, and the kernel itself silences it at the end of the last hold.
    std::fs::write(file(&a, "lease:refuse"), "").unwrap();
    first.comes_to("the kernel's fault to be told", |s| {
        is_master(s, &epoch) && trouble(s, "needs repair: master, but the kernel does not answer for the addresses")
    });
    wait::until("the address to fall silent", SOON, silent).unwrap();
    std::fs::remove_file(file(&a, "lease:refuse")).unwrap();
    let at = unix_us();
    wait::until("the address to answer again", SOON, || witness.sole_owner(Duration::from_millis(100))).unwrap();
    println!("alone: answers {} ms after the kernel was well", (unix_us() - at) / 1000);
    first.comes_to("all to be well", |s| is_master(s, &epoch) && !trouble(s, "needs repair"));

    // With another node, that node becomes master.
    let second = b.start();
    first.is_armed("b");
    let since = unix_us();
    std::fs::write(file(&a, "lease:refuse"), "").unwrap();
    second.is_master();
    wait::until("b alone to answer", SOON, || {
        witness.sole_owner(Duration::from_millis(100)).and_then(|o| if o == "b" { Ok(()) } else { Err(o) })
    })
    .unwrap();
    let seen = witness.finding(since);
    println!("handed over: silent for {} ms; {:?}", seen.silence_us / 1000, seen.owners);
    assert_eq!(seen.two_hosts_ms, 0, "{seen:?}");
    std::fs::remove_file(file(&a, "lease:refuse")).unwrap();
    second.is_armed("a");
    first.comes_to("all to be well", |s| !trouble(s, "needs repair"));
    first.stops();
    second.stops();
}
