//! A report for people: a line for each call, or all details of one.

use crate::control::cli::output::{moment, printable, table};
use crate::inspect::report::{
    Audio, By, Call, Crypto, Description, End, Hold, Leg, LegDirection, Media, Party, Report, Rtp, Signalling, State,
};
use std::fmt::{Display, Write as _};

/// The report, with a table of its calls or (`whole`) all details of each.
pub(in crate::control::cli) fn render(r: &Report, whole: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let server = if r.server.addresses.is_empty() { "none found".to_owned() } else { list(&r.server.addresses) };
    let certainty = kebab(&r.server.certainty);
    let _ = writeln!(text, "server: {server} port {} ({certainty})", list(&r.server.ports));
    let others: Vec<String> = r
        .servers
        .iter()
        .filter(|s| !s.chosen && s.relayed + s.received.min(s.sent) > 0)
        .map(|s| s.address.to_string())
        .collect();
    if !others.is_empty() {
        let _ = writeln!(text, "other servers: {}", others.join(", "));
    }
    if let (Some(first), Some(last)) = (r.first_ms, r.last_ms) {
        let _ = writeln!(text, "time: {} to {}", moment(first), moment(last));
    }
    let t = &r.traffic;
    let _ =
        writeln!(text, "frames: {}, SIP messages: {}, RTP packets: {}", t.frames, t.sip, r.rtp.packets + r.rtp.unknown);
    for note in &r.notes {
        let _ = writeln!(text, "note: {}", printable(note));
    }
    if let Some(why) = &r.truncated {
        let _ = writeln!(text, "note: the file was not read to its end: {}", printable(why));
    }
    let count = |s: State| r.calls.iter().filter(|c| c.state == s).count();
    let states = [
        State::Up,
        State::Ringing,
        State::Calling,
        State::Ended,
        State::Failed,
        State::Cancelled,
        State::Redirected,
        State::Unanswered,
    ];
    let counts: Vec<String> =
        states.iter().filter(|s| count(**s) > 0).map(|s| format!("{} {}", count(*s), kebab(s))).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let _ = writeln!(text, "calls: {}{counts}", r.calls.len());
    let summary = r.summary.line();
    if !whole && !summary.is_empty() {
        let _ = writeln!(text, "if the server failed: {}", printable(&summary));
    }
    if whole {
        for c in &r.calls {
            text.push_str(&block(c));
        }
    } else if !r.calls.is_empty() {
        let header = [
            "#",
            "ID",
            "STATE",
            "START",
            "SECONDS",
            "FROM",
            "TO",
            "CODE",
            "ENDED BY",
            "LEGS",
            "PAIRED",
            "AUDIO",
            "SIGNALLING",
        ];
        text.push('\n');
        text.push_str(&table(&header, r.calls.iter().enumerate().map(|(n, c)| row(n, c)).collect()));
        text.push_str(
            "\nPAIRED: how two legs were found to be one call, and the confidence of 100\n\
             AUDIO and SIGNALLING: the fate of the call if its server failed; --call # shows the reason and all \
             details of a call\n",
        );
    }
    text
}

fn row(n: usize, c: &Call) -> Vec<String> {
    vec![
        (n + 1).to_string(),
        c.id.clone(),
        format!(
            "{}{}{}",
            kebab(&c.state),
            if c.partial { " (partial)" } else { "" },
            if c.emergency { " EMERGENCY" } else { "" }
        ),
        moment(c.started_ms),
        c.duration_ms.map_or_else(|| "-".to_owned(), seconds),
        short(&c.from),
        short(&c.to),
        c.code.map_or_else(|| "-".to_owned(), |c| c.to_string()),
        c.ended_by.as_ref().map_or_else(|| "-".to_owned(), kebab::<By>),
        if c.through_server { c.legs.len().to_string() } else { format!("{} elsewhere", c.legs.len()) },
        c.pairing.as_ref().map_or_else(|| "-".to_owned(), |p| format!("{} {}", kebab(p), c.confidence.unwrap_or(0))),
        kebab::<Audio>(&c.recovery.audio),
        kebab::<Signalling>(&c.recovery.signalling),
    ]
}

fn short(p: &Party) -> String {
    p.user.clone().unwrap_or_else(|| p.uri.clone())
}

fn long(p: &Party) -> String {
    let name = p.name.as_ref().map(|n| format!("\"{n}\" ")).unwrap_or_default();
    let at = p.address.map(|a| format!(" at {a}")).unwrap_or_default();
    format!("{name}<{}>{at}", p.uri)
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// A value under its JSON name.
fn kebab<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.iter().map(T::to_string).collect::<Vec<_>>().join(", ") }
}

/// Lines of name and value; empty values are left out.
fn lines(text: &mut String, indent: &str, all: &[(&str, String)]) {
    for (name, value) in all.iter().filter(|(_, v)| !v.is_empty()) {
        let _ = writeln!(text, "{indent}{name}: {}", printable(value));
    }
}

fn time(ms: Option<u64>) -> String {
    ms.map(moment).unwrap_or_default()
}

fn block(c: &Call) -> String {
    let mut text = format!("\ncall {}: {}\n", c.id, kebab(&c.state));
    let code = c.code.map(|code| format!("{code} {}", c.reason.clone().unwrap_or_default())).unwrap_or_default();
    let r = &c.recovery;
    lines(
        &mut text,
        "   ",
        &[
            ("emergency", if c.emergency { "yes".to_owned() } else { String::new() }),
            ("from", long(&c.from)),
            ("to", long(&c.to)),
            ("started", moment(c.started_ms)),
            (
                "partial",
                if c.partial { "a part of the call's start is not in the file".to_owned() } else { String::new() },
            ),
            ("ringing", time(c.ringing_ms)),
            ("answered", time(c.answered_ms)),
            ("ended", time(c.ended_ms)),
            ("seconds", c.duration_ms.map(seconds).unwrap_or_default()),
            ("answer", code.trim().to_owned()),
            ("ended by", c.ended_by.as_ref().map(kebab::<By>).unwrap_or_default()),
            ("how", c.ended_how.clone().unwrap_or_default()),
            (
                "legs paired by",
                c.pairing
                    .as_ref()
                    .map(|p| format!("{} (confidence {} of 100)", kebab(p), c.confidence.unwrap_or(0)))
                    .unwrap_or_default(),
            ),
            ("stored as", c.stored_id.clone().unwrap_or_default()),
            ("recovery", format!("audio {}, signalling {}: {}", kebab(&r.audio), kebab(&r.signalling), r.why)),
        ],
    );
    for f in &r.flows {
        let _ = writeln!(text, "      {} -> {} becomes {} -> {}", f.from, f.at, f.source, f.to);
    }
    for note in &c.notes {
        let _ = writeln!(text, "   note: {}", printable(note));
    }
    for (n, l) in c.legs.iter().enumerate() {
        text.push_str(&leg(n, l));
    }
    text
}

fn leg(n: usize, l: &Leg) -> String {
    let way = match l.direction {
        LegDirection::Inbound => format!("{} -> {}", l.remote_addr, l.local_addr),
        LegDirection::Outbound => format!("{} -> {}", l.local_addr, l.remote_addr),
        LegDirection::Unknown => format!("{} - {}", l.local_addr, l.remote_addr),
    };
    let elsewhere = if l.through_server { "" } else { ", not through the server" };
    let mut text = format!(
        "   leg {}: {} {}, {way} over {}{elsewhere}\n",
        n + 1,
        kebab(&l.state),
        kebab(&l.direction),
        kebab(&l.transport)
    );
    let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let code = l.code.map(|code| format!("{code} {}", l.reason.clone().unwrap_or_default())).unwrap_or_default();
    lines(
        &mut text,
        "      ",
        &[
            ("missing", l.missing.join("; ")),
            ("Call-ID", l.call_id.clone()),
            ("request URI", l.request_uri.clone().unwrap_or_default()),
            ("local", l.local.clone()),
            ("remote", l.remote.clone()),
            ("local target", l.local_target.clone()),
            ("remote target", l.remote_target.clone()),
            ("route set", l.route_set.join(", ")),
            ("CSeq", format!("local {}, remote {}", number(l.local_cseq), number(l.remote_cseq))),
            ("answer", code.trim().to_owned()),
            ("retried after", l.retried.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
            ("ended by", l.ended_by.as_ref().map(kebab::<End>).unwrap_or_default()),
            ("how", l.ended_how.clone().unwrap_or_default()),
            (
                "session timer",
                l.session_timer
                    .map(|t| format!("{} s, {} refreshes", t.interval_s, kebab(&t.refresher)))
                    .unwrap_or_default(),
            ),
            ("hold", if l.hold == Hold::None { String::new() } else { format!("by {}", kebab(&l.hold)) }),
            ("user agent", l.user_agent.clone().unwrap_or_default()),
            ("refers to", l.refers.join(", ")),
            ("replaces", l.replaces.clone().unwrap_or_default()),
            ("also seen", l.also_seen.iter().map(|[a, b]| format!("{a} -> {b}")).collect::<Vec<_>>().join(", ")),
            ("messages", format!("{}, {} re-INVITE or UPDATE", l.messages, l.reinvites)),
        ],
    );
    for m in &l.media {
        text.push_str(&media(m));
    }
    text
}

fn media(m: &Media) -> String {
    let agreed = if m.agreed { "" } else { ", not agreed" };
    let mut text =
        format!("      {} {}{agreed}: {}\n", printable(&m.kind), printable(&m.proto), printable(&m.codecs.join(" ")));
    for (name, d) in [("local", &m.local), ("remote", &m.remote)] {
        if let Some(d) = d {
            let _ = writeln!(text, "         {name}: {}", printable(&description(d)));
        }
    }
    for (name, r) in [("RTP received", &m.received), ("RTP sent", &m.sent)] {
        if let Some(r) = r {
            let _ = writeln!(text, "         {name}: {}", printable(&rtp(r)));
        }
    }
    text
}

fn description(d: &Description) -> String {
    let address = d.address.map_or_else(|| "?".to_owned(), |a| a.to_string());
    let mut text = format!("{address} port {} {}", d.port, d.direction);
    if d.crypto != Crypto::None {
        let _ = write!(text, " {}", kebab(&d.crypto));
    }
    for (name, is) in [("rtcp-mux", d.rtcp_mux), ("ice", d.ice)] {
        if is {
            let _ = write!(text, " {name}");
        }
    }
    let _ = write!(text, " {}", d.codecs.join(" "));
    text
}

fn rtp(r: &Rtp) -> String {
    let mut text = format!("{} packets", r.packets);
    if let (Some(from), Some(to)) = (r.source, r.destination) {
        let _ = write!(text, " {from} -> {to}");
    }
    if r.source_differs {
        text.push_str(" (not the address in the description)");
    }
    for t in &r.payload_types {
        let _ = write!(text, ", {} type {} {}", t.packets, t.number, t.codec.clone().unwrap_or_default());
    }
    if r.lost > 0 {
        let _ = write!(text, ", {} lost", r.lost);
    }
    text
}
