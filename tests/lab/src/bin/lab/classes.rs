//! One call of every class that Debian's servers and the lab's phones can make: what `keepcall calls` says of each before
//! its server loses power, and what the phones hear and get afterwards.

use anyhow::{Result, ensure};
use lab::asterisk::{Asterisk, Extra};
use lab::ground::Ground;
use lab::kamailio::Kamailio;
use lab::lan::{Lan, VIP4, end_after};
use lab::phone::{Command, Manner, Phase, Phone, Reaction};
use lab::rtpengine::Rtpengine;
use lab::{unix_us, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest wait for one step.
const SOON: Duration = Duration::from_secs(60);
/// A party counts as gone after two unanswered requests of 32 s each (RFC 3261 section 17.1.1.2, timer B) and the pause
/// between them.
const TOLD: Duration = Duration::from_secs(120);

/// What one party of a call should have after the takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Party {
    hears: bool,
    reinvited: bool,
    bye: bool,
}

const CARRIED: Party = Party { hears: true, reinvited: true, bye: false };
const UNTOUCHED: Party = Party { hears: true, reinvited: false, bye: false };
/// Asked, and out of reach.
const UNREACHED: Party = Party { hears: false, reinvited: false, bye: false };

/// A class of calls.
struct Class {
    name: &'static str,
    /// The number that the caller dials, if not the other phone's.
    dials: Option<&'static str>,
    caller: Manner,
    called: Manner,
    on_hold: bool,
    /// What `keepcall calls` should say.
    said: &'static str,
    want: [Option<Party>; 2],
}

impl Class {
    fn new(name: &'static str) -> Self {
        let plain = Manner::default();
        let want = [Some(CARRIED); 2];
        Self { name, dials: None, caller: plain, called: plain, on_hold: false, said: "kept", want }
    }

    /// The called phone answers a re-INVITE like this, and the two parties have this afterwards.
    fn answers(name: &'static str, reinvite: Reaction, want: [Party; 2]) -> Self {
        let called = Manner { reinvite, ..Manner::default() };
        Self { called, want: want.map(Some), ..Self::new(name) }
    }
}

/// Behind an Asterisk.
fn of_a_server() -> Vec<Class> {
    let reached = Party { hears: false, ..CARRIED };
    vec![
        Class::new("two phones"),
        Class {
            caller: Manner { speak_elsewhere: true, ..Manner::default() },
            ..Class::new("audio from another port than the description's")
        },
        Class { on_hold: true, ..Class::new("on hold, resumed after the takeover") },
        Class::answers(
            "a phone that refuses the re-INVITE (488)",
            Reaction::Refuse(488),
            [CARRIED, Party { reinvited: false, ..CARRIED }],
        ),
        Class::answers("a phone that is deaf, and goes on speaking", Reaction::Deaf, [CARRIED, UNREACHED]),
        Class::answers(
            "a phone that is gone from the network",
            Reaction::Gone,
            [Party { bye: true, ..reached }, UNREACHED],
        ),
        Class {
            dials: Some("112"),
            ..Class::answers("an emergency call, and its other party is gone", Reaction::Gone, [reached, UNREACHED])
        },
        Class {
            dials: Some("600"),
            said: "lost",
            want: [Some(UNREACHED), None],
            ..Class::new("a phone in an application of the server")
        },
    ]
}

/// A call, and what is seen of it.
struct Shown {
    class: Class,
    caller: Phone,
    called: Phone,
    said: Value,
}

impl Shown {
    fn phones(&self) -> [&Phone; 2] {
        [&self.caller, &self.called]
    }

    fn set_up(&self) -> Result<()> {
        let dials = self.class.dials.map_or_else(|| self.called.number.clone(), str::to_owned);
        self.caller.tell(Command::Call(dials))?;
        wait::until(self.class.name, SOON, || {
            let others = self.phones().into_iter().zip(self.class.want).filter(|(_, want)| want.is_some());
            let pair = self.class.want[1].is_some();
            let up = |p: &Phone| p.state().phase == Phase::Up && (!pair || !p.state().right.is_empty());
            if others.clone().all(|(p, _)| up(p)) { Ok(()) } else { Err(self.caller.summary()) }
        })?;
        if !self.class.on_hold {
            return Ok(());
        }
        self.caller.tell(Command::Hold)?;
        wait::until("the hold", SOON, || {
            if self.caller.state().own_reinvites.is_empty() { Err(self.caller.summary()) } else { Ok(()) }
        })
    }

    /// What `keepcall calls` says of this call.
    fn read(&mut self, rows: &Value) -> Result<()> {
        let number = format!("sip:{}@", self.caller.number);
        let legs = |row: &Value| row["legs"].as_array().cloned().unwrap_or_default();
        let ours =
            |row: &&Value| legs(row).iter().any(|leg| leg["remote"].as_str().is_some_and(|r| r.contains(&number)));
        let row = rows.as_array().and_then(|rows| rows.iter().find(ours));
        ensure!(row.is_some(), "keepcall calls does not show the call of {}: {rows}", self.caller.number);
        self.said = row.cloned().unwrap_or_default();
        Ok(())
    }

    /// What each party hears now, and what else it got since the takeover.
    fn seen(&self, since: u64) -> [Party; 2] {
        // Whole seconds of the right tone are counted, and a busy machine may be late with one.
        let lately = (unix_us() - 4_000_000).max(since + 1_000_000);
        self.phones().map(|phone| {
            let s = phone.state();
            Party {
                hears: s.right.iter().any(|&t| t >= lately),
                reinvited: s.reinvites.iter().any(|r| r.at >= since && r.code == 200),
                bye: s.bye_received.is_some_and(|at| at >= since),
            }
        })
    }

    fn is_right(&self, at: u64) -> bool {
        let right = |(want, seen): (Option<Party>, Party)| want.is_none_or(|want| want == seen);
        self.said["takeover"] == self.class.said && self.class.want.into_iter().zip(self.seen(at)).all(right)
    }

    fn row(&self, at: u64) -> Value {
        let party = |p: Party| json!({"hears": p.hears, "reinvited": p.reinvited, "bye": p.bye});
        let [caller, called] = self.seen(at).map(party);
        json!({
            "class": self.class.name,
            "said": self.said["takeover"],
            "why": self.said["not_kept"],
            "caller": caller,
            "called": self.class.want[1].map(|_| called),
            "ok": self.is_right(at),
        })
    }
}

/// Sets these calls up on the ground, takes the master's power, and waits until each call has what it should have.
fn act<S>(ground: &mut Ground<S>, classes: Vec<Class>) -> Result<Vec<Value>> {
    let server = SocketAddr::from((VIP4, 5060));
    let mut calls = {
        let _in_runtime = ground.rt.enter();
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let shown = |(i, class): (usize, Class)| {
            let caller = Phone::new(p1, 0, i, server, class.caller)?;
            // Until the takeover it answers as it should.
            let plain = Manner { reinvite: Reaction::Accept, ..class.called };
            let called = Phone::new(p2, 1, i, server, plain)?;
            Ok(Shown { class, caller, called, said: Value::Null })
        };
        classes.into_iter().enumerate().map(shown).collect::<Result<Vec<_>>>()?
    };
    calls.iter().try_for_each(Shown::set_up)?;
    ground.wait_stored(calls.len())?;
    let rows: Value = serde_json::from_str(&ground.agents[ground.master].run(&["calls", "--json"])?)?;
    let rows = rows.get("calls").cloned().unwrap_or(rows);
    calls.iter_mut().try_for_each(|call| call.read(&rows))?;
    calls.iter().try_for_each(|call| call.called.tell(Command::Behave(call.class.called)))?;
    let at = ground.cut_power()?;
    for call in calls.iter().filter(|call| call.class.on_hold) {
        wait::until("the held call's re-INVITE", SOON, || {
            if call.seen(at).iter().any(|p| p.reinvited) { Ok(()) } else { Err(call.caller.summary()) }
        })?;
        call.caller.tell(Command::Resume)?;
    }
    // A call that should get nothing must not get it later either, so the slowest one is waited for.
    let end = Instant::now() + TOLD;
    while Instant::now() < end && !calls.iter().all(|call| call.is_right(at)) {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(calls.iter().map(|call| call.row(at)).collect())
}

fn behind_asterisk() -> Result<Vec<Value>> {
    let start = |lan: &Lan, host: &_, _: &_| {
        let p2 = lan.host("p2")?.ip4;
        let emergency = of_a_server().iter().position(|c| c.dials == Some("112")).unwrap_or_default();
        let extensions = format!(
            "\n[lab](+)\nexten => 600,1,Answer()\nexten => 600,2,Echo()\n\
             exten => 112,1,Dial(PJSIP/p2/sip:112@{p2}:{},60)\n",
            12_000 + emergency
        );
        let mut server = Asterisk::start_with(lan, host, Extra { extensions, ..Extra::default() })?;
        server.wait_ready()?;
        let pidfile = server.pidfile.clone();
        Ok((server, pidfile))
    };
    act(&mut Ground::new(start)?, of_a_server())
}

fn behind_a_proxy() -> Result<Vec<Value>> {
    let class = Class { want: [Some(UNTOUCHED); 2], ..Class::new("through a proxy, audio from phone to phone") };
    act(&mut Ground::new(|lan, host, _| Kamailio::proxy(lan, host))?, vec![class])
}

fn behind_a_media_proxy() -> Result<Vec<Value>> {
    let class = Class { want: [Some(UNTOUCHED); 2], ..Class::new("through a proxy and its media server (rtpengine)") };
    let start = |lan: &Lan, host: &_, _: &_| {
        let media = Rtpengine::start(host)?;
        let (proxy, pidfile) = Kamailio::media_proxy(lan, host)?;
        Ok(((proxy, media), pidfile))
    };
    act(&mut Ground::new(start)?, vec![class])
}

fn line(row: &Value) -> String {
    let party = |p: &Value| {
        let has = |key: &str| p[key] == true;
        let hears = if has("hears") { "hears" } else { "silence" };
        let told = if has("bye") {
            ", BYE"
        } else if has("reinvited") {
            ", re-INVITE"
        } else {
            ""
        };
        if p.is_null() { "-".to_owned() } else { format!("{hears}{told}") }
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let good = if row["ok"] == true { "" } else { "   NOT AS IT SHOULD BE" };
    let (class, said) = (text(&row["class"]), text(&row["said"]));
    format!("{class:<48} {said:<6} {:<20} {:<20}{good}", party(&row["caller"]), party(&row["called"]))
}

/// Plays all classes. `quiet`: only the last line.
pub(crate) fn run(quiet: bool) -> Result<bool> {
    // Three grounds, each with a takeover and its longest wait.
    end_after(Duration::from_secs(1_200));
    let say = |what: &str| {
        if !quiet {
            println!("{what}");
        }
    };
    say(&format!("{:<48} {:<6} {:<20} {:<20}", "CALL", "SAID", "CALLER AFTERWARDS", "CALLED AFTERWARDS"));
    let mut all = Vec::new();
    for play in [behind_asterisk, behind_a_proxy, behind_a_media_proxy] {
        let rows = play()?;
        rows.iter().for_each(|row| say(&line(row)));
        all.extend(rows);
    }
    say("\nSAID: what `keepcall calls` said of the call before its server lost power.");
    say("Not shown, because the lab has no such phones: TCP, TLS, WebSocket, SRTP.");
    let good = all.iter().all(|row| row["ok"] == true);
    println!("{}", json!({"classes": all, "ok": good}));
    Ok(good)
}
