//! Tests against a stand-in with mod_event_socket's framing and names: headers, an empty line, a body of
//! `Content-Length` bytes; percent-encoded values in events; answers in the order of the commands.

use super::*;
use crate::pbx::bridges::{Place, ServerReports};

struct Talk {
    esl: Esl,
    now: Time,
    told: ServerReports,
    sent: VecDeque<String>,
}

fn framed(kind: &str, body: &str) -> String {
    format!("Content-Length: {}\nContent-Type: {kind}\n\n{body}", body.len())
}

fn encoded(value: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
    value.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A plain event with these headers, named `name`.
fn event(name: &str, headers: &[(&str, &str)]) -> String {
    let mut body =
        format!("Event-Name: {name}\nCore-UUID: 6d2375b0-5183-11e1-b24c-f527b57af954\nEvent-Sequence: 712\n");
    for (name, value) in headers {
        body.push_str(&format!("{name}: {}\n", encoded(value)));
    }
    framed("text/event-plain", &format!("{body}\n"))
}

const A: &str = "0aa11111-5183-11e1-b24c-f527b57af954";
const B: &str = "1bb22222-5183-11e1-b24c-f527b57af954";
const C: &str = "2cc33333-5183-11e1-b24c-f527b57af954";

impl Talk {
    fn new() -> Self {
        let now = Time::from_millis(1000);
        let mut talk =
            Self { esl: Esl::new("ClueCon", now), now, told: ServerReports::default(), sent: VecDeque::new() };
        talk.say("Content-Type: auth/request\n\n");
        talk
    }

    fn try_say(&mut self, text: &str) -> Result<(), Refusal> {
        // In odd pieces, because nothing may depend on how the bytes arrive.
        let result = text.as_bytes().chunks(7).try_for_each(|part| self.esl.handle_bytes(part, self.now));
        while let Some(bytes) = self.esl.poll_send() {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.ends_with("\n\n") && text.matches('\n').count() == 2, "{text:?}");
            self.sent.push_back(text.trim_end().to_owned());
        }
        while let Some(fact) = self.esl.poll_fact() {
            self.told.handle(&fact);
        }
        result
    }

    fn say(&mut self, text: &str) {
        self.try_say(text).unwrap();
    }

    fn asked(&mut self) -> String {
        self.sent.pop_front().unwrap_or_else(|| panic!("nothing is asked"))
    }

    fn reply(&mut self, text: &str) {
        self.say(&format!("Content-Type: command/reply\nReply-Text: {text}\n\n"));
    }

    fn api(&mut self, body: &str) {
        self.say(&framed("api/response", body));
    }

    fn login(&mut self) {
        assert_eq!(self.asked(), "auth ClueCon");
        self.reply("+OK accepted");
        let subscribed = self.asked();
        assert!(
            subscribed.starts_with("event plain CHANNEL_CREATE ")
                && subscribed.ends_with(" CUSTOM conference::maintenance")
        );
        self.reply("+OK event listener enabled plain");
        assert_eq!(
            (self.asked().as_str(), self.asked().as_str()),
            ("api show channels as json", "api show bridged_calls as json")
        );
    }

    fn listed(&mut self) {
        self.login();
        self.api("{\"row_count\":0}\n");
        self.api("{\"row_count\":0}\n");
        assert!(self.esl.is_ready() && self.told.is_live());
    }

    fn channel(&mut self, uuid: &str, call_id: &str) {
        let name = format!("sofia/internal/1000@{uuid}");
        self.say(&event(
            "CHANNEL_CREATE",
            &[
                ("Unique-ID", uuid),
                ("Channel-Name", &name),
                ("variable_sip_call_id", call_id),
                ("Call-Direction", "inbound"),
            ],
        ));
    }

    fn bridged(&mut self, what: &str, a: &str, b: &str) {
        self.say(&event(
            what,
            &[
                ("Bridge-A-Unique-ID", a),
                ("Bridge-B-Unique-ID", b),
                ("Unique-ID", a),
                ("Channel-Name", "sofia/internal/1000@h"),
                ("Other-Leg-Unique-ID", b),
            ],
        ));
    }

    fn end(&self, call_id: &str) -> Option<(ConnectedKind, String)> {
        match self.told.place(call_id.as_bytes()) {
            Place::At(end) => Some((end.kind, end.name)),
            _ => None,
        }
    }
}

#[test]
fn refusals_are_told_in_the_servers_words() {
    let mut talk = Talk::new();
    assert_eq!(
        talk.try_say("Content-Type: command/reply\nReply-Text: -ERR invalid\n\n"),
        Err(Refusal::Login("-ERR invalid".into()))
    );
    let mut esl = Esl::new("x", Time::ZERO);
    let rude = framed("text/rude-rejection", "Access Denied, go away.\n");
    assert_eq!(esl.handle_bytes(rude.as_bytes(), Time::ZERO), Err(Refusal::Login("Access Denied, go away.".into())));
    for foreign in ["HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "Content-Length: many\n\n"] {
        assert!(matches!(
            Esl::new("x", Time::ZERO).handle_bytes(foreign.as_bytes(), Time::ZERO),
            Err(Refusal::Foreign(_))
        ));
    }
    let mut talk = Talk::new();
    talk.login();
    let denied = talk.try_say("Content-Type: command/reply\nReply-Text: -ERR permission denied\n\n").unwrap_err();
    assert!(denied.to_string().contains("uuid_getvar"), "{denied}");
    let mut talk = Talk::new();
    talk.listed();
    let bye = "Content-Type: text/disconnect-notice\nControlled-Session-UUID: x\nContent-Disposition: disconnect\nContent-Length: 4\n\nbye\n";
    assert_eq!(talk.try_say(bye), Err(Refusal::Bye));
    // A line break in the password starts no command of its own.
    let mut esl = Esl::new("x\n\nexit", Time::ZERO);
    esl.handle_bytes(b"Content-Type: auth/request\n\n", Time::ZERO).unwrap();
    assert_eq!(esl.poll_send().unwrap(), b"auth xexit\n\n");
}

#[test]
fn lists_begin_the_picture_and_what_events_said_since_is_newer() {
    let mut talk = Talk::new();
    talk.login();
    // While the lists are made, a is bridged with c, and b hangs up.
    talk.channel(C, "c@h");
    talk.bridged("CHANNEL_UNBRIDGE", A, B);
    talk.bridged("CHANNEL_BRIDGE", A, C);
    talk.say(&event("CHANNEL_HANGUP_COMPLETE", &[("Unique-ID", B), ("Hangup-Cause", "NORMAL_CLEARING")]));
    let row = |uuid: &str, application: &str, data: &str| {
        format!(
            "{{\"uuid\":\"{uuid}\",\"direction\":\"inbound\",\"name\":\"sofia/internal/{uuid}\",\"state\":\"CS_EXECUTE\",\"application\":\"{application}\",\"application_data\":\"{data}\",\"callstate\":\"ACTIVE\"}}"
        )
    };
    let d = "3dd44444-5183-11e1-b24c-f527b57af954";
    let e = "4ee55555-5183-11e1-b24c-f527b57af954";
    let f = "5ff66666-5183-11e1-b24c-f527b57af954";
    let rows = [
        row(A, "bridge", "user/2"),
        row(B, "", ""),
        row(C, "", ""),
        row(d, "conference", "3000-h@default"),
        row(e, "", ""),
        row(f, "", ""),
    ];
    talk.api(&format!("{{\"row_count\":6,\"rows\":[{}]}}\n", rows.join(",")));
    talk.api(&format!(
        "{{\"row_count\":2,\"rows\":[{{\"uuid\":\"{A}\",\"b_uuid\":\"{B}\"}},{{\"uuid\":\"{e}\",\"b_uuid\":\"{f}\"}}]}}\n"
    ));
    let mut answered = 0;
    while let Some(ask) = talk.sent.pop_front() {
        assert!(!talk.esl.is_ready());
        let uuid =
            ask.strip_prefix("api uuid_getvar ").and_then(|r| r.strip_suffix(" sip_call_id")).unwrap().to_owned();
        talk.api(&format!("{}@h", &uuid[1..2]));
        answered += 1;
    }
    assert!(talk.esl.is_ready());
    assert_eq!(answered, 4, "a by its event, and d, e, f");
    assert_eq!((talk.told.place(b"a@h"), talk.told.place(b"c@h")), (Place::With(b"c@h"), Place::With(b"a@h")));
    assert_eq!((talk.told.place(b"e@h"), talk.told.place(b"f@h")), (Place::With(b"f@h"), Place::With(b"e@h")));
    assert_eq!(talk.end("d@h"), Some((ConnectedKind::Conference, "3000-h".into())));
    assert_eq!(talk.told.place(b"b@h"), Place::Unknown);
}

#[test]
fn bridges_transfers_and_hangups_are_followed() {
    let mut talk = Talk::new();
    talk.listed();
    talk.channel(A, "a@10.0.0.1;x=%41");
    talk.channel(B, "b@h");
    talk.channel(C, "c@h");
    let a = b"a@10.0.0.1;x=%41";
    talk.bridged("CHANNEL_BRIDGE", A, B);
    assert_eq!(talk.told.place(a), Place::With(b"b@h"));
    // An attended transfer: the end of the old bridge is reported after the start of the new one, and by the other
    // side.
    talk.bridged("CHANNEL_BRIDGE", C, A);
    talk.bridged("CHANNEL_UNBRIDGE", B, A);
    assert_eq!((talk.told.place(a), talk.told.place(b"c@h")), (Place::With(b"c@h"), Place::With(a)));
    assert_eq!(talk.end("b@h").map(|e| e.0), Some(ConnectedKind::Nobody));
    talk.say(&event("CHANNEL_HANGUP_COMPLETE", &[("Unique-ID", C)]));
    talk.say(&event("CHANNEL_DESTROY", &[("Unique-ID", C)]));
    assert_eq!(
        (talk.end("a@10.0.0.1;x=%41").map(|e| e.0), talk.told.place(b"c@h")),
        (Some(ConnectedKind::Nobody), Place::Unknown)
    );
}

#[test]
fn what_a_leg_listens_to_is_named() {
    let mut talk = Talk::new();
    talk.listed();
    talk.channel(A, "a@h");
    let about = [("Unique-ID", A), ("Channel-Name", "sofia/internal/1000@h")];
    let run = |talk: &mut Talk, name: &str, more: &[(&str, &str)]| talk.say(&event(name, &[&about[..], more].concat()));
    run(
        &mut talk,
        "CHANNEL_EXECUTE",
        &[("Application", "playback"), ("Application-Data", "tone_stream://%(100,100,440)")],
    );
    assert_eq!(talk.end("a@h"), Some((ConnectedKind::Application, "playback".into())));
    run(&mut talk, "CHANNEL_EXECUTE_COMPLETE", &[("Application", "playback")]);
    assert_eq!(talk.end("a@h"), Some((ConnectedKind::Nobody, String::new())));
    run(&mut talk, "CHANNEL_EXECUTE", &[("Application", "callcenter"), ("Application-Data", "support@default")]);
    assert_eq!(talk.end("a@h"), Some((ConnectedKind::Queue, "support@default".into())));
    run(&mut talk, "CHANNEL_PARK", &[]);
    assert_eq!(talk.end("a@h").map(|e| e.0), Some(ConnectedKind::Parked));
    let member = [
        ("Event-Subclass", "conference::maintenance"),
        ("Conference-Name", "3000"),
        ("Conference-Unique-ID", "9c1e"),
        ("Action", "add-member"),
    ];
    run(&mut talk, "CUSTOM", &member);
    assert_eq!(talk.end("a@h"), Some((ConnectedKind::Conference, "3000".into())));
    let gone: Vec<_> = member.iter().map(|(n, v)| (*n, if *n == "Action" { "del-member" } else { v })).collect();
    run(&mut talk, "CHANNEL_UNPARK", &[]);
    run(&mut talk, "CUSTOM", &gone);
    assert_eq!(talk.end("a@h"), Some((ConnectedKind::Nobody, String::new())));
}

#[test]
fn loopback_channels_are_followed_and_an_outbound_dialog_is_asked_for_until_it_is_there() {
    let mut talk = Talk::new();
    talk.listed();
    let (l1, l2) = ("loop-1", "loop-2");
    for (l, name, other) in [(l1, "loopback/2000-a", l2), (l2, "loopback/2000-b", l1)] {
        talk.say(&event(
            "CHANNEL_CREATE",
            &[("Unique-ID", l), ("Channel-Name", name), ("variable_other_loopback_leg_uuid", other)],
        ));
    }
    talk.channel(A, "a@h");
    // An outbound channel has its Call-ID once the INVITE is sent.
    let outbound = [("Unique-ID", B), ("Channel-Name", "sofia/internal/2000"), ("Call-Direction", "outbound")];
    talk.say(&event("CHANNEL_CREATE", &outbound));
    assert_eq!(talk.asked(), format!("api uuid_getvar {B} sip_call_id"));
    talk.api("_undef_");
    talk.say(&event("CHANNEL_PROGRESS", &outbound));
    assert_eq!(talk.asked(), format!("api uuid_getvar {B} sip_call_id"));
    talk.api("b@h");
    let join = |talk: &mut Talk, a: &str, b: &str, name: &str| {
        let sides = [("Bridge-A-Unique-ID", a), ("Bridge-B-Unique-ID", b), ("Unique-ID", a), ("Channel-Name", name)];
        talk.say(&event("CHANNEL_BRIDGE", &sides));
    };
    join(&mut talk, A, l1, "sofia/internal/1000");
    join(&mut talk, l2, B, "loopback/2000-b");
    assert_eq!((talk.told.place(b"a@h"), talk.told.place(b"b@h")), (Place::With(b"b@h"), Place::With(b"a@h")));
    assert_eq!(talk.sent.len(), 0);
}

#[test]
fn names_that_could_be_commands_are_not_followed() {
    let mut talk = Talk::new();
    talk.listed();
    for evil in ["x y", "x\n\napi shutdown", "", "a;b", &"x".repeat(300)] {
        talk.say(&event("CHANNEL_CREATE", &[("Unique-ID", evil), ("Channel-Name", "sofia/internal/1")]));
    }
    assert_eq!(talk.sent.len(), 0);
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let mut talk = Talk::new();
    talk.listed();
    talk.now = talk.esl.next_deadline();
    talk.esl.handle_timeout(talk.now).unwrap();
    talk.say("");
    assert_eq!(talk.asked(), "api uptime");
    talk.api("123\n");
    for _ in 0..2 {
        talk.now = talk.esl.next_deadline();
        let result = talk.esl.handle_timeout(talk.now);
        if result.is_err() {
            assert_eq!(result, Err(Refusal::Silent));
            return;
        }
    }
    panic!("still waiting");
}
