//! Legs of a real Asterisk, paired by its own reports of its bridges. Needs root.
mod listener;
mod phones;

use anyhow::{Result, ensure};
use keepcall::calls::model::{Call, CallEvent, Pairing};
use keepcall::pbx::ConnectedKind;
use keepcall::pbx::driver::Login;
use lab::agent::{Agent, Setup, built_program};
use lab::asterisk::{Asterisk, Extra};
use lab::etcd::Etcd;
use lab::lan::{Lan, VIP4};
use lab::wait;
use listener::Listener;
use phones::Phones;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
/// Simultaneous calls between identical parties.
const EQUAL: usize = 8;
const MODULES: &[&str] = &[
    "res_pjsip_refer",
    "res_pjsip_header_funcs",
    "res_musiconhold",
    "codec_resample",
    "func_channel",
    "app_stack",
    "app_confbridge",
    "app_queue",
];

struct Scene {
    listener: Listener,
    callers: Phones,
    called: Phones,
    asterisk: Asterisk,
    secret: PathBuf,
    lan: Lan,
}

/// An Asterisk on host `a`, and the file with the secret of its manager interface.
fn asterisk(lan: &Lan) -> Result<(Asterisk, PathBuf)> {
    let host = lan.host("a")?;
    let manager = "[general]\nenabled=yes\nbindaddr=127.0.0.1\n[keepcall]\nsecret=a long: secret\nread=call\n\
         write=reporting\ndeny=0.0.0.0/0.0.0.0\npermit=127.0.0.1/255.255.255.255\n";
    let p2 = lan.host("p2")?.ip4;
    // Each call carries the truth: the Call-ID of the leg that caused it.
    let dial = format!("Dial(PJSIP/p2/sip:${{EXTEN}}@{p2}:6000,60,b(truth^s^1))");
    let extensions = format!(
        "\n[truth]\nexten => s,1,Set(PJSIP_HEADER(add,X-Truth)=${{TRUTH}})\n same => n,Return()\n\n\
         [lab](+)\nexten => _7XXX,1,Set(__TRUTH=${{CHANNEL(pjsip,call-id)}})\n same => n,Goto(inner,${{EXTEN}},1)\n\n\
         [inner]\nexten => _7XXX,1,{dial}\n\n\
         [lab](+)\nexten => 8000,1,ConfBridge(room)\nexten => 8001,1,Answer()\n same => n,Queue(empty)\n\
         exten => 8002,1,Answer()\n same => n,Echo()\n\
         exten => 8003,1,Set(__TRUTH=${{CHANNEL(pjsip,call-id)}})\n same => n,Answer()\n same => n,Queue(agents)\n\
         exten => 8004,1,Set(__TRUTH=${{CHANNEL(pjsip,call-id)}})\n same => n,Dial(Local/7001@inner,60)\n"
    );
    let queues = "[general]\n[empty]\njoinempty=yes\n[agents]\njoinempty=yes\nmember => Local/7001@inner/n\n";
    let files = vec![
        ("manager.conf", manager.to_owned()),
        ("queues.conf", queues.to_owned()),
        ("confbridge.conf", "[general]\n".into()),
    ];
    let mut asterisk = Asterisk::start_with(lan, host, Extra { modules: MODULES, files, extensions })?;
    asterisk.wait_ready()?;
    let secret = host.dir.join("ami.secret");
    std::fs::write(&secret, "a long: secret\n")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    Ok((asterisk, secret))
}

impl Scene {
    fn new() -> Result<Self> {
        let lan = Lan::new()?;
        let host = lan.host("a")?;
        host.add_address(VIP4.into())?;
        let (asterisk, secret) = asterisk(&lan)?;
        Ok(Self {
            listener: Listener::start(host)?,
            callers: Phones::start(lan.host("p1")?, 5060)?,
            called: Phones::start(lan.host("p2")?, 6000)?,
            asterisk,
            secret,
            lan,
        })
    }

    fn connect(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5038));
        self.listener.login(Some(Login::Ami { address, user: "keepcall".into(), secret_file: self.secret.clone() }));
        wait::until("the manager interface", SOON, || {
            self.listener
                .status()
                .filter(|s| s.connected)
                .map(|_| ())
                .ok_or_else(|| format!("{:?}", self.listener.status()))
        })
    }

    /// Calls from one party to one number, all answered at once; returns their Call-IDs.
    fn equal_calls(&self, to: &str) -> Result<Vec<String>> {
        let before = self.callers.up();
        self.called.answer_in_bundles_of(EQUAL);
        let ids: Vec<_> = (0..EQUAL).map(|_| self.callers.call("1000", to)).collect();
        wait::until("all calls to be up", SOON, || {
            if self.callers.up() == before + EQUAL { Ok(()) } else { Err(format!("{} are", self.callers.up())) }
        })?;
        self.called.answer_in_bundles_of(0);
        Ok(ids)
    }

    /// The latest leg that Asterisk made for the leg with this Call-ID.
    fn made_for(&self, call_id: &str) -> Result<String> {
        wait::until("the leg that is made for another", SOON, || {
            let found = self.called.calls().into_iter().rev().find(|c| c.truth == call_id && c.up && !c.over);
            found.map(|c| c.call_id).ok_or_else(|| format!("{:?}", self.called.calls()))
        })
    }

    /// Waits until these two legs are one call, by the server's report.
    fn wait_pair(&self, one: &str, other: &str) -> Result<Call> {
        wait::until("two legs to be one call", SOON, || {
            let calls = self.listener.calls();
            let found = calls.iter().find(|c| {
                let ids: Vec<_> = c.legs.iter().map(|l| l.call_id.lossy()).collect();
                ids.len() == 2 && ids.iter().any(|i| i == one) && ids.iter().any(|i| i == other)
            });
            match found {
                Some(c) if c.pairing == Some(Pairing::Bridge) && c.confidence == Some(100) => Ok(c.clone()),
                found => Err(format!("{one} and {other}: {found:?} of {:?}", shown(&calls))),
            }
        })
    }

    fn wait_single(&self, call_id: &str, kind: ConnectedKind, name: &str) -> Result<()> {
        wait::until("a leg to be marked", SOON, || {
            let calls = self.listener.calls();
            let found = calls.iter().find(|c| c.legs.iter().any(|l| l.call_id.lossy() == call_id));
            let end = found.filter(|c| c.legs.len() == 1).and_then(|c| c.other_end.clone());
            match end {
                Some(end) if end.kind == kind && end.name == name => Ok(()),
                end => Err(format!("{call_id}: {end:?} of {:?}", shown(&calls))),
            }
        })
    }

    fn hang_up_all(&self) -> Result<()> {
        for call in self.callers.calls().iter().filter(|c| c.up && !c.over) {
            self.callers.hang_up(&call.call_id)?;
        }
        wait::until("all calls to end", SOON, || {
            let left = self.listener.calls();
            if left.is_empty() { Ok(()) } else { Err(format!("{:?}; {:?}", shown(&left), self.called.calls())) }
        })
    }
}

/// Runs a test on its own scene; on failure keeps the logs of all hosts, and prints where.
fn on_scene(test: impl FnOnce(&Scene) -> Result<()>) {
    let scene = Scene::new().unwrap();
    if let Err(e) = test(&scene) {
        let to = std::env::temp_dir().join(format!("keepcall-pairing-{}", std::process::id()));
        scene.lan.keep_logs(&to).unwrap();
        panic!("{e:#}\nthe logs of all hosts are in {}", to.display());
    }
}

fn shown(calls: &[Call]) -> Vec<String> {
    let leg = |c: &Call| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>().join("+");
    calls.iter().map(|c| format!("{} {:?} {:?}", leg(c), c.pairing, c.other_end)).collect()
}

#[test]
fn asterisk_says_which_legs_are_one_call() {
    on_scene(|scene| {
        // These calls look alike: none is paired, since a guess would join strangers.
        let before = scene.equal_calls("7000")?;
        wait::until("the legs to be learnt", SOON, || {
            let calls = scene.listener.calls();
            if calls.len() == 2 * EQUAL { Ok(()) } else { Err(format!("{:?}", shown(&calls))) }
        })?;
        ensure!(scene.listener.calls().iter().all(|c| c.legs.len() == 1), "{:?}", shown(&scene.listener.calls()));

        // The listener asks for calls from before the connection.
        scene.connect()?;
        for id in &before {
            scene.wait_pair(id, &scene.made_for(id)?)?;
        }
        // New calls are reported, at once and only once.
        scene.listener.events();
        let after = scene.equal_calls("7000")?;
        for id in &after {
            scene.wait_pair(id, &scene.made_for(id)?)?;
        }
        let events = scene.listener.events();
        ensure!(!events.iter().any(|e| matches!(e, CallEvent::Delete { .. })), "told otherwise first: {events:?}");

        // Blind transfer by the called party.
        let (caller, called) = (&after[0], scene.made_for(&after[0])?);
        scene.called.transfer(&called, "7005")?;
        wait::until("the transferred leg to be another", SOON, || {
            let now = scene.made_for(caller).map_err(|e| e.to_string())?;
            if now == called { Err("still the same".into()) } else { Ok(()) }
        })?;
        scene.wait_pair(caller, &scene.made_for(caller)?)?;

        // Attended transfer: the caller has two calls, and joins its two called parties.
        let (first, second) = (&after[1], &after[2]);
        let (one, other) = (scene.made_for(first)?, scene.made_for(second)?);
        scene.callers.join(first, second)?;
        let joined = scene.wait_pair(&one, &other)?;
        ensure!(joined.legs.iter().all(|l| l.direction == keepcall::calls::model::Direction::Outbound), "{joined:?}");
        wait::until("the news of the transfer", SOON, || {
            let news = scene.callers.calls().iter().find(|c| c.call_id == *first).map(|c| c.transferred.clone());
            if news.as_deref().is_some_and(|n| n.contains("200")) { Ok(()) } else { Err(format!("{news:?}")) }
        })?;
        scene.callers.hang_up(first)?;
        wait::until("the transferring legs to end", SOON, || {
            let over = scene.callers.calls().iter().filter(|c| c.over && [first, second].contains(&&c.call_id)).count();
            if over == 2 { Ok(()) } else { Err(format!("{over} are over")) }
        })?;
        scene.wait_pair(&one, &other)?;
        scene.called.hang_up(&one)?;
        scene.hang_up_all()
    });
}

#[test]
fn legs_that_talk_to_the_server_itself_are_marked_and_local_channels_are_followed() {
    on_scene(|scene| {
        scene.connect()?;
        let members: Vec<_> = (0..3).map(|n| scene.callers.call(&format!("100{n}"), "8000")).collect();
        let (waiting, echo) = (scene.callers.call("1004", "8001"), scene.callers.call("1005", "8002"));
        let (queued, local) = (scene.callers.call("1006", "8003"), scene.callers.call("1006", "8004"));
        for id in &members {
            scene.wait_single(id, ConnectedKind::Conference, "room")?;
        }
        scene.wait_single(&waiting, ConnectedKind::Queue, "empty")?;
        scene.wait_single(&echo, ConnectedKind::Application, "Echo")?;
        for id in [&queued, &local] {
            scene.wait_pair(id, &scene.made_for(id)?)?;
        }
        scene.hang_up_all()?;
        // A lost server is an error in the status, and nothing more.
        scene.asterisk.proc.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait::until("the lost connection to be shown", SOON, || match scene.listener.status() {
            Some(s) if !s.connected && s.error.is_some() => Ok(()),
            s => Err(format!("{s:?}")),
        })
    });
}

#[test]
fn the_agent_of_a_master_asks_its_server_and_shows_what_it_says() {
    let run = || -> Result<()> {
        let lan = Lan::new()?;
        let (asterisk, secret) = asterisk(&lan)?;
        let etcd = Etcd::start(&lan)?;
        let setup = Setup {
            program: built_program()?,
            cluster: "test".into(),
            endpoints: etcd.endpoints.clone(),
            heartbeat: Duration::from_millis(200),
            hold: Duration::from_secs(2),
            server_pidfile: Some(asterisk.pidfile.clone()),
            on_backup: None,
        };
        let more = format!("[instance.sip.ami]\nuser = \"keepcall\"\nsecret_file = {:?}\n", secret);
        let agent = Agent::start_with(lan.host("a")?, &setup, &more)?;
        wait::every(Duration::from_millis(200), "a master that has asked its server", Duration::from_secs(60), || {
            let instance = agent.instance().map_err(|e| format!("{e:#}"))?;
            let good = instance["role"] == "master" && instance["server"]["connected"] == true;
            if good { Ok(()) } else { Err(format!("{instance}; {}", agent.proc.tail())) }
        })?;
        let (callers, called) = (Phones::start(lan.host("p1")?, 5060)?, Phones::start(lan.host("p2")?, 6000)?);
        called.answer_in_bundles_of(4);
        let ids: Vec<_> = (0..4).map(|_| callers.call("1000", "7000")).collect();
        let member = callers.call("1001", "8000");
        wait::every(Duration::from_millis(200), "the calls as the server joined them", SOON, || {
            let rows = agent.ask(&["calls"]).map_err(|e| format!("{e:#}"))?;
            let row = |id: &str| {
                let rows = rows.as_array().into_iter().flatten();
                rows.clone().find(|r| r["legs"].as_array().into_iter().flatten().any(|l| l["call_id"] == id)).cloned()
            };
            for id in &ids {
                let made = called.calls().into_iter().find(|c| c.truth == *id).ok_or("no such leg")?;
                let right = row(id).filter(|r| r["pairing"] == "bridge" && r["confidence"] == 100);
                if right.is_none() || right != row(&made.call_id) {
                    return Err(format!("{id} {}: {rows}", made.call_id));
                }
            }
            let end = row(&member).unwrap_or_default()["other_end"].clone();
            if end["kind"] == "conference" && end["name"] == "room" { Ok(()) } else { Err(rows.to_string()) }
        })
    };
    run().unwrap();
}
