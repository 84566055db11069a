use super::*;
use crate::pbx::ConnectedKind;
use crate::pbx::bridges::Place;
use crate::pbx::bridges::ServerReports;
use crate::pbx::questions::WINDOW;

/// Both ends of a conversation: the server's messages, and the client's result.
struct Talk {
    ami: Ami,
    now: Time,
    told: ServerReports,
    facts: Vec<Fact>,
    /// Unanswered actions, as `(ActionID, text)`.
    asked: Vec<(String, String)>,
}

impl Talk {
    fn new() -> Self {
        let now = Time::from_millis(1000);
        let ami = Ami::new("keepcall", "s3cret", now);
        let mut talk = Self { ami, now, told: ServerReports::default(), facts: Vec::new(), asked: Vec::new() };
        talk.say("Asterisk Call Manager/5.0.4\r\n");
        talk
    }

    fn try_say(&mut self, text: &str) -> Result<(), Refusal> {
        let result = self.ami.handle_bytes(text.as_bytes(), self.now);
        self.collect();
        result
    }

    fn say(&mut self, text: &str) {
        self.try_say(text).unwrap();
    }

    fn collect(&mut self) {
        while let Some(bytes) = self.ami.poll_send() {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.ends_with("\r\n\r\n"), "{text:?}");
            let id = text.lines().find_map(|l| l.strip_prefix("ActionID: ")).unwrap().to_owned();
            self.asked.push((id, text));
        }
        while let Some(fact) = self.ami.poll_fact() {
            self.told.handle(&fact);
            self.facts.push(fact);
        }
    }

    /// Answers the oldest action that contains `part`.
    fn answer(&mut self, part: &str, lines: &str) {
        let at = self
            .asked
            .iter()
            .position(|(_, text)| text.contains(part))
            .unwrap_or_else(|| panic!("{part}: {:?}", self.asked));
        let (id, _) = self.asked.remove(at);
        self.say(&format!("{}\r\n\r\n", lines.replace("ID", &format!("ActionID: {id}")).replace('|', "\r\n")));
    }

    fn event(&mut self, lines: &str) {
        self.say(&format!("Event: {}\r\n\r\n", lines.replace('|', "\r\n")));
    }

    fn login(&mut self) {
        self.answer("Action: Challenge", "Response: Success|ID|Challenge: 840415273");
        self.answer("Action: Login", "Response: Success|ID|Message: Authentication accepted");
        self.event("FullyBooted|Privilege: system,all|Status: Fully Booted");
    }

    fn listed(&mut self) {
        self.login();
        self.answer("Action: Status", "Response: Success|ID|EventList: start|Message: Channel status will follow");
        self.event("StatusComplete|EventList: Complete|ListItems: 0|Items: 0");
        self.answer("Action: BridgeList", "Response: Success|ID|EventList: start|Message: Bridge listing will follow");
        self.event("BridgeListComplete|EventList: Complete|ListItems: 0");
        assert!(self.ami.is_ready());
    }

    fn channel(&mut self, name: &str, id: &str, call_id: &str) {
        self.event(&format!(
            "Newchannel|Privilege: call,all|Channel: {name}|ChannelState: 0|Uniqueid: {id}|Linkedid: 1.1"
        ));
        if !call_id.is_empty() {
            self.answer(
                "Action: Getvar",
                &format!("Response: Success|ID|Variable: CHANNEL(pjsip,call-id)|Value: {call_id}"),
            );
        }
    }

    fn bridge(&mut self, event: &str, bridge: &str, more: &str, name: &str, id: &str) {
        self.event(&format!(
            "{event}|BridgeUniqueid: {bridge}|BridgeType: basic|{more}|BridgeNumChannels: 2|Channel: {name}|ChannelState: 6|Uniqueid: {id}"
        ));
    }

    fn end(&self, call_id: &str) -> Option<(ConnectedKind, String)> {
        match self.told.place(call_id.as_bytes()) {
            Place::At(end) => Some((end.kind, end.name)),
            _ => None,
        }
    }
}

const SIMPLE: &str = "BridgeTechnology: simple_bridge|BridgeCreator: <unknown>|BridgeName: <unknown>";

#[test]
fn the_secret_is_proved_and_never_sent() {
    let mut talk = Talk::new();
    talk.login();
    let mut seen = talk.asked.iter().map(|(_, t)| t.as_str()).collect::<String>();
    assert!(!seen.contains("s3cret"));
    // The output of `printf 840415273s3cret | md5sum`.
    let mut talk = Talk::new();
    talk.answer("Challenge", "Response: Success|ID|Challenge: 840415273");
    seen = talk.asked[0].1.clone();
    assert!(
        seen.contains("AuthType: MD5\r\nUsername: keepcall\r\nKey: d7994fd8cd10e2224514d095d0fd3f7b\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("s3cret") && seen.contains("Events: call\r\n"), "{seen}");
}

#[test]
fn refusals_are_told_in_the_servers_words() {
    let mut talk = Talk::new();
    talk.answer("Challenge", "Response: Success|ID|Challenge: 1");
    let (id, _) = talk.asked[0].clone();
    let refused = talk.try_say(&format!("Response: Error\r\nActionID: {id}\r\nMessage: Authentication failed\r\n\r\n"));
    assert_eq!(refused, Err(Refusal::Login("Authentication failed".into())));
    let mut talk = Talk::new();
    talk.login();
    let (id, _) = talk.asked.iter().find(|(_, t)| t.contains("Status")).unwrap().clone();
    let refused =
        talk.try_say(&format!("Response: Error\r\nActionID: {id}\r\nMessage: Permission denied\r\n\r\n")).unwrap_err();
    assert!(refused.to_string().contains("write = reporting"), "{refused}");
    let mut ami = Ami::new("u", "s", Time::ZERO);
    assert!(matches!(ami.handle_bytes(b"SSH-2.0-OpenSSH_9\r\n", Time::ZERO), Err(Refusal::Foreign(_))));
    let mut talk = Talk::new();
    talk.listed();
    assert_eq!(talk.try_say("Event: Shutdown\r\nShutdown: Cleanly\r\n\r\n"), Err(Refusal::Bye));
}

#[test]
fn what_there_was_is_whole_only_when_every_dialog_is_known() {
    let mut talk = Talk::new();
    talk.login();
    talk.answer("Action: Status", "Response: Success|ID|EventList: start|Message: Channel status will follow");
    let mut status = |name: &str, id: &str, bridge: &str, application: &str| {
        talk.event(&format!(
            "Status|Privilege: Call|Channel: {name}|ChannelState: 6|Uniqueid: {id}|BridgeID: {bridge}|Application: {application}|Data: room"
        ));
    };
    // A Local channel between the two, and a conference.
    status("PJSIP/a-1", "1.1", "x", "Dial");
    status("Local/2@lab-0;1", "1.2", "x", "AppDial");
    status("Local/2@lab-0;2", "1.3", "y", "Dial");
    status("SIP/b-2", "1.4", "y", "AppDial");
    status("PJSIP/c-3", "1.5", "z", "ConfBridge");
    status("PJSIP/d-4", "1.6", "", "Queue");
    status("DAHDI/i1", "1.7", "", "Playback");
    talk.event("StatusComplete|EventList: Complete|ListItems: 7");
    talk.answer("Action: BridgeList", "Response: Success|ID|EventList: start|Message: Bridge listing will follow");
    talk.event(&format!("BridgeListItem|BridgeUniqueid: x|BridgeType: basic|{SIMPLE}|BridgeNumChannels: 2"));
    talk.event("BridgeListItem|BridgeUniqueid: z|BridgeType: base|BridgeTechnology: softmix|BridgeCreator: ConfBridge|BridgeName: 4711|BridgeNumChannels: 1");
    talk.event("BridgeListComplete|EventList: Complete|ListItems: 2");
    assert!(!talk.ami.is_ready() && !talk.told.is_live());
    assert!(talk.asked.iter().any(|(_, t)| t.contains("Channel: SIP/b-2\r\nVariable: SIPCALLID\r\n")));
    assert_eq!(talk.asked.len(), 4, "the Local channel and the line have no dialog: {:?}", talk.asked);
    for (name, call_id) in [("PJSIP/a-1", "A"), ("SIP/b-2", "B"), ("PJSIP/c-3", "C"), ("PJSIP/d-4", "D")] {
        assert!(!talk.ami.is_ready());
        talk.answer(name, &format!("Response: Success|ID|Variable: v|Value: {call_id}"));
    }
    assert!(talk.ami.is_ready() && talk.told.is_live());
    assert_eq!((talk.told.place(b"A"), talk.told.place(b"B")), (Place::With(b"B"), Place::With(b"A")));
    assert_eq!(talk.end("C"), Some((ConnectedKind::Conference, "4711".into())));
    assert_eq!(talk.end("D"), Some((ConnectedKind::Queue, "room".into())));
}

#[test]
fn events_keep_the_picture_up_to_date() {
    let mut talk = Talk::new();
    talk.listed();
    talk.channel("PJSIP/a-1", "1.1", "A");
    talk.channel("PJSIP/b-2", "1.2", "B");
    talk.channel("PJSIP/c-3", "1.3", "C");
    assert_eq!(talk.end("A"), Some((ConnectedKind::Nobody, String::new())));
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/b-2", "1.2");
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/a-1", "1.1");
    assert_eq!(talk.told.place(b"A"), Place::With(b"B"));
    // Transfer: b leaves, c comes.
    talk.bridge("BridgeLeave", "x", SIMPLE, "PJSIP/b-2", "1.2");
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/c-3", "1.3");
    assert_eq!((talk.told.place(b"A"), talk.end("B").map(|e| e.0)), (Place::With(b"C"), Some(ConnectedKind::Nobody)));
    // An attended transfer: b replaces c, and the bridge never has three members.
    talk.bridge("BridgeEnter", "x", &format!("{SIMPLE}|SwapUniqueid: 1.3"), "PJSIP/b-2", "1.2");
    assert_eq!((talk.told.place(b"A"), talk.end("C").map(|e| e.0)), (Place::With(b"B"), Some(ConnectedKind::Nobody)));
    talk.bridge("BridgeLeave", "x", SIMPLE, "PJSIP/c-3", "1.3");
    talk.bridge("BridgeLeave", "x", SIMPLE, "PJSIP/b-2", "1.2");
    assert_eq!(talk.end("A").map(|e| e.0), Some(ConnectedKind::Nobody));
    talk.event("Hangup|Channel: PJSIP/c-3|ChannelState: 6|Uniqueid: 1.3|Cause: 16");
    talk.event("BridgeDestroy|BridgeUniqueid: x|BridgeNumChannels: 0");
    assert_eq!((talk.end("A").map(|e| e.0), talk.told.place(b"C")), (Some(ConnectedKind::Nobody), Place::Unknown));
    talk.bridge(
        "BridgeEnter",
        "p",
        "BridgeTechnology: holding_bridge|BridgeCreator: Parking|BridgeName: default",
        "PJSIP/a-1",
        "1.1",
    );
    assert_eq!(talk.end("A"), Some((ConnectedKind::Parked, "default".into())));
}

#[test]
fn a_channel_that_takes_anothers_dialog_over_is_asked_again() {
    let mut talk = Talk::new();
    talk.listed();
    talk.channel("Local/1@x-0;1", "1.1", "");
    talk.channel("PJSIP/a-1", "1.2", "A");
    talk.channel("PJSIP/b-2", "1.3", "B");
    talk.bridge("BridgeEnter", "x", SIMPLE, "Local/1@x-0;1", "1.1");
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/b-2", "1.3");
    // Asterisk exchanges the insides of the two, and with them their names.
    for (id, from, to) in [
        ("1.2", "PJSIP/a-1", "PJSIP/a-1<MASQ>"),
        ("1.1", "Local/1@x-0;1", "PJSIP/a-1"),
        ("1.2", "PJSIP/a-1<MASQ>", "Local/1@x-0;1<ZOMBIE>"),
    ] {
        talk.event(&format!("Rename|Channel: {from}|Newname: {to}|Uniqueid: {id}"));
    }
    talk.answer("Channel: PJSIP/a-1\r\n", "Response: Success|ID|Variable: v|Value: A");
    talk.event("Hangup|Channel: Local/1@x-0;1<ZOMBIE>|Uniqueid: 1.2");
    assert_eq!((talk.told.place(b"A"), talk.told.place(b"B")), (Place::With(b"B"), Place::With(b"A")));
}

#[test]
fn a_channel_in_no_bridge_is_asked_what_it_runs_less_and_less_often() {
    let mut talk = Talk::new();
    talk.listed();
    talk.channel("PJSIP/a-1", "1.1", "A");
    talk.event("Newstate|Channel: PJSIP/a-1|ChannelState: 6|Uniqueid: 1.1");
    let mut asked = Vec::new();
    let start = talk.now;
    while talk.now.since(start) < Duration::from_secs(120) {
        talk.now = talk.ami.next_deadline();
        talk.ami.handle_timeout(talk.now).unwrap();
        talk.collect();
        if talk.asked.iter().any(|(_, t)| t.contains("Action: Status")) {
            asked.push(talk.now.since(start).as_millis());
            talk.answer("Action: Status", "Response: Success|ID|EventList: start|Message: Channel status will follow");
            talk.event(
                "Status|Channel: PJSIP/a-1|ChannelState: 6|Uniqueid: 1.1|BridgeID: |Application: Playback|Data: x",
            );
            talk.event("StatusComplete|EventList: Complete|ListItems: 1");
        } else if talk.asked.iter().any(|(_, t)| t.contains("Action: Ping")) {
            talk.answer("Action: Ping", "Response: Success|ID|Ping: Pong");
        }
    }
    assert_eq!(asked, [500, 2500, 12_500, 42_500, 72_500, 102_500]);
    assert_eq!(talk.end("A"), Some((ConnectedKind::Application, "Playback".into())));
    // A channel in a bridge is not queried, and its earlier application is over when it leaves.
    talk.channel("PJSIP/b-2", "1.2", "B");
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/b-2", "1.2");
    talk.bridge("BridgeEnter", "x", SIMPLE, "PJSIP/a-1", "1.1");
    talk.now += Duration::from_secs(5);
    talk.ami.handle_timeout(talk.now).unwrap();
    talk.collect();
    assert_eq!(talk.asked, []);
    talk.bridge("BridgeLeave", "x", SIMPLE, "PJSIP/a-1", "1.1");
    assert_eq!(talk.end("A"), Some((ConnectedKind::Nobody, String::new())));
}

#[test]
fn a_dialog_that_is_not_there_yet_is_asked_for_again() {
    let mut talk = Talk::new();
    talk.listed();
    talk.event("Newchannel|Channel: PJSIP/a-1|ChannelState: 0|Uniqueid: 1.1");
    talk.answer("Getvar", "Response: Success|ID|Variable: CHANNEL(pjsip,call-id)|Value: ");
    assert_eq!(talk.asked, []);
    talk.event("Newstate|Channel: PJSIP/a-1|ChannelState: 5|Uniqueid: 1.1");
    talk.answer("Getvar", "Response: Success|ID|Variable: CHANNEL(pjsip,call-id)|Value: A");
    assert_ne!(talk.told.place(b"A"), Place::Unknown);
}

#[test]
fn questions_are_few_at_a_time_and_silence_ends_the_connection() {
    let mut talk = Talk::new();
    talk.listed();
    for n in 0..100 {
        talk.event(&format!("Newchannel|Channel: PJSIP/a-{n}|ChannelState: 0|Uniqueid: 1.{n}"));
    }
    assert_eq!(talk.asked.len(), WINDOW);
    for n in 0..100 {
        talk.answer("Getvar", &format!("Response: Success|ID|Variable: v|Value: C{n}"));
    }
    assert_eq!(talk.facts.iter().filter(|f| matches!(f, Fact::Dialog { .. })).count(), 100);
    // A ping after ten seconds, and ten more for the answer.
    talk.now += IDLE;
    talk.ami.handle_timeout(talk.now).unwrap();
    talk.collect();
    assert!(talk.asked.iter().any(|(_, t)| t.contains("Action: Ping")), "{:?}", talk.asked);
    talk.now += ANSWER;
    assert_eq!(talk.ami.handle_timeout(talk.now), Err(Refusal::Silent));
}

#[test]
fn no_value_begins_a_line_of_its_own() {
    let mut talk = Talk::new();
    talk.listed();
    // A lone carriage return inside a name. Blocks are split at line feeds.
    talk.event("Newchannel|Channel: PJSIP/a\rAction: Originate-1|ChannelState: 0|Uniqueid: 1.1");
    let text = &talk.asked[0].1;
    assert_eq!(text.matches("Action:").count() - text.matches("Channel: PJSIP/aAction:").count(), 1, "{text:?}");
}

fn request(talk: &mut Talk, request: Request) {
    talk.ami.request(request, talk.now);
    talk.collect();
}

#[test]
fn a_former_call_is_hung_up_by_the_exact_name_that_told_its_tag() {
    use crate::pbx::request::Answer;
    let mut talk = Talk::new();
    talk.listed();
    talk.channel("PJSIP/p1-00000001", "1.1", "one");
    request(&mut talk, Request::Tag { channel: "1.1".into() });
    talk.answer("CHANNEL(pjsip,local_tag)", "Response: Success|ID|Variable: x|Value: t1");
    let name = "PJSIP/p1-00000001".to_owned();
    let tag = Answer::Tag { channel: "1.1".into(), name: name.clone(), tag: Some(b"t1".to_vec()) };
    assert_eq!(talk.facts.last(), Some(&Fact::Answer(tag)));

    request(&mut talk, Request::HangUp { channel: "1.1".into(), name: "PJSIP/p1-00000002".into() });
    assert_eq!(talk.facts.last(), Some(&Fact::Answer(Answer::Missing { channel: "1.1".into() })));
    assert!(!talk.asked.iter().any(|(_, text)| text.contains("Hangup")), "{:?}", talk.asked);

    let whole = "Action: Hangup\r\nChannel: PJSIP/p1-00000001\r\nCause: 16\r\n";
    request(&mut talk, Request::HangUp { channel: "1.1".into(), name: name.clone() });
    talk.answer(whole, "Response: Success|ID|Message: Channel Hungup");
    assert_eq!(talk.facts.last(), Some(&Fact::Answer(Answer::Ending { channel: "1.1".into() })));
    request(&mut talk, Request::HangUp { channel: "1.1".into(), name: name.clone() });
    talk.answer(whole, "Response: Error|ID|Message: No such channel");
    assert_eq!(talk.facts.last(), Some(&Fact::Answer(Answer::Missing { channel: "1.1".into() })));
    request(&mut talk, Request::HangUp { channel: "1.1".into(), name });
    talk.answer(whole, "Response: Error|ID|Message: Permission denied");
    let Some(Fact::Answer(Answer::Denied { error })) = talk.facts.last() else { panic!("{:?}", talk.facts) };
    assert!(error.contains("write = call"), "{error}");
}

#[test]
fn a_tag_that_the_server_does_not_tell_is_unknown() {
    use crate::pbx::request::Answer;
    let mut talk = Talk::new();
    talk.listed();
    talk.channel("SIP/p1-00000001", "1.1", "one");
    talk.channel("PJSIP/p1-00000002", "1.2", "two");
    let unknown = |talk: &Talk| matches!(talk.facts.last(), Some(Fact::Answer(Answer::Tag { tag: None, .. })));
    request(&mut talk, Request::Tag { channel: "1.1".into() });
    assert!(unknown(&talk), "{:?}", talk.facts);
    talk.facts.clear();
    request(&mut talk, Request::Tag { channel: "1.2".into() });
    talk.answer("local_tag", "Response: Success|ID|Variable: x|Value: ");
    assert!(unknown(&talk), "{:?}", talk.facts);
}
