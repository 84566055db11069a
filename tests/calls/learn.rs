//! `keepcall inspect` on lab captures of real servers and phones, compared with what tshark reads in the same files.
//! Needs root, tshark and tcpdump.

mod party;
mod rules;
mod tshark;

use anyhow::{Context, Result, ensure};
use lab::asterisk::Asterisk;
use lab::calls::Calls;
use lab::lan::{Host, Lan, VIP4};
use lab::phone::{Command as Say, Manner, Phone};
use lab::proc::Proc;
use lab::sipp::port;
use lab::wait;
use party::{Fate, Party};
use rules::Name;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;
use tshark::Message;

const SOON: Duration = Duration::from_secs(40);

/// A running capture.
struct Capture {
    proc: Proc,
    file: PathBuf,
}

impl Capture {
    fn start(host: &Host, interface: &str) -> Result<Self> {
        let file = host.dir.join("learn.pcap");
        let path = file.to_string_lossy().into_owned();
        // In immediate mode a packet takes as much of the buffer as the longest one: the default of 2 MiB holds eight.
        let options = ["-s", "0", "-B", "65536", "-U", "--immediate-mode", "-Z", "root", "-w", &path, "udp or tcp"];
        let proc = host.spawn("tcpdump", &[&["tcpdump", "-i", interface], &options[..]].concat())?;
        wait::until("tcpdump to listen", SOON, || {
            if proc.tail().contains("listening on") { Ok(()) } else { Err(proc.tail()) }
        })?;
        Ok(Self { proc, file })
    }

    fn stop(mut self) -> Result<PathBuf> {
        self.proc.stop(SOON)?;
        Ok(self.file)
    }
}

fn inspect(file: &Path, more: &[&str]) -> Result<Value> {
    let out =
        Command::new(env!("CARGO_BIN_EXE_keepcall")).arg("inspect").arg(file).arg("--json").args(more).output()?;
    ensure!(out.status.success(), "inspect {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("its JSON")
}

fn text<'v>(v: &'v Value, name: &str) -> &'v str {
    v[name].as_str().unwrap_or_default()
}

fn number(v: &Value) -> Option<u32> {
    v.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn places(leg: &Value, side: &str) -> Vec<(String, u16)> {
    let all = leg["media"].as_array().into_iter().flatten().map(|m| &m[side]);
    all.map(|d| (text(d, "address").to_owned(), u16::try_from(d["port"].as_u64().unwrap_or(0)).unwrap_or(0))).collect()
}

/// Every difference between the report and tshark.
fn differences(report: &Value, messages: &[Message]) -> Vec<String> {
    let mut wrong = Vec::new();
    let calls = report["calls"].as_array().cloned().unwrap_or_default();
    let legs: Vec<&Value> = calls.iter().flat_map(|c| c["legs"].as_array().into_iter().flatten()).collect();
    // Nothing is missing: each INVITE's Call-ID on each pair of addresses is a leg.
    for m in messages.iter().filter(|m| m.method.as_deref() == Some("INVITE") && m.to_tag.is_empty()) {
        let (Some(src), Some(dst)) = (m.src, m.dst) else { continue };
        let pair = [src.to_string(), dst.to_string()];
        let known = legs.iter().any(|l| {
            text(l, "call_id") == m.call_id
                && pair.contains(&text(l, "local_addr").to_owned())
                && pair.contains(&text(l, "remote_addr").to_owned())
        });
        if !known {
            wrong.push(format!("{} from {src} to {dst} is no leg", m.call_id));
        }
    }
    for leg in &legs {
        let (Ok(local), Ok(remote)) = (text(leg, "local_addr").parse(), text(leg, "remote_addr").parse()) else {
            continue;
        };
        let name = Name {
            call_id: text(leg, "call_id"),
            local,
            remote,
            tags: [text(leg, "local_tag"), text(leg, "remote_tag")],
        };
        let d = rules::dialog(messages, &name);
        let mut differ = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!(
                    "{} {local} - {remote} ({}): {what} is {ours}, by tshark {theirs}",
                    name.call_id,
                    text(leg, "state")
                ));
            }
        };
        differ("code", format!("{:?}", number(&leg["code"])), format!("{:?}", d.code.map(u32::from)));
        differ("local CSeq", format!("{:?}", number(&leg["local_cseq"])), format!("{:?}", d.local_cseq));
        differ("remote CSeq", format!("{:?}", number(&leg["remote_cseq"])), format!("{:?}", d.remote_cseq));
        if leg["answered_ms"].is_null() {
            continue;
        }
        differ("whether it is over", (text(leg, "state") == "ended").to_string(), d.bye.to_string());
        differ("remote target", text(leg, "remote_target").to_owned(), d.remote_target.clone().unwrap_or_default());
        differ("route set", leg["route_set"].to_string(), Value::from(d.route_set.clone()).to_string());
        differ(
            "local media",
            format!("{:?}", places(leg, "local")),
            format!("{:?}", d.local_sdp.clone().unwrap_or_default()),
        );
        differ(
            "remote media",
            format!("{:?}", places(leg, "remote")),
            format!("{:?}", d.remote_sdp.clone().unwrap_or_default()),
        );
    }
    wrong
}

/// Compares, and returns the report.
fn compared(file: &Path, what: &str) -> Result<Value> {
    let report = inspect(file, &[])?;
    let messages = tshark::messages(file)?;
    ensure!(!messages.is_empty(), "{what}: tshark found no SIP in {}", file.display());
    let wrong = differences(&report, &messages);
    ensure!(wrong.is_empty(), "{what}: {} differences\n{}", wrong.len(), wrong.join("\n"));
    ensure!(
        report["traffic"]["sip"] == messages.len(),
        "{what}: {} messages, by tshark {}",
        report["traffic"]["sip"],
        messages.len()
    );
    Ok(report)
}

/// The call with this caller and called number.
fn call(report: &Value, from: u16, to: u16) -> Result<&Value> {
    let (from, to) = (from.to_string(), to.to_string());
    let mut all = report["calls"].as_array().into_iter().flatten();
    let found = all.find(|c| text(&c["from"], "user") == from && text(&c["to"], "user") == to);
    found.with_context(|| format!("no call from {from} to {to} in {report:#}"))
}

fn expect(report: &Value, from: u16, to: u16, state: &str, legs: usize) -> Result<Value> {
    let c = call(report, from, to)?;
    ensure!(text(c, "state") == state, "the call from {from} to {to} is {}, not {state}: {c:#}", text(c, "state"));
    ensure!(
        c["legs"].as_array().map(Vec::len) == Some(legs),
        "the call from {from} to {to} has not {legs} legs: {c:#}"
    );
    Ok(c.clone())
}

/// Waits until these parties have finished their scenario.
fn done(parties: &mut [Proc]) -> Result<()> {
    for p in parties {
        wait::until("a party to be done", SOON, || match p.ended() {
            Ok(Some(s)) if s.success() => Ok(()),
            Ok(Some(s)) => Err(format!("it ended with {s}: {}", p.tail())),
            other => Err(format!("{other:?}: {}", p.tail())),
        })?;
    }
    Ok(())
}

fn lab(test: impl FnOnce(&Lan) -> Result<()>, name: &str) -> Result<()> {
    let lan = Lan::new()?;
    let result = test(&lan);
    if result.is_err() {
        let to = std::env::temp_dir().join(format!("keepcall-{name}-{}", std::process::id()));
        lan.keep_logs(&to)?;
        eprintln!("the logs of all hosts are in {}", to.display());
    }
    result
}

/// A pair of parties with these fates, the called one first, so that it listens.
fn pair<'l>(hosts: [&'l Host; 2], n: u16, tcp: bool, fates: [Fate; 2]) -> [Party<'l>; 2] {
    [
        Party { host: hosts[1], number: 2000 + n, tcp, fate: fates[1] },
        Party { host: hosts[0], number: 1000 + n, tcp, fate: fates[0] },
    ]
}

/// Calls of every fate through `by` (or direct), each with its number. Returns the parties that end by themselves, and
/// those that stay.
fn place(lan: &Lan, by: Option<SocketAddr>, calls: &[(u16, bool, [Fate; 2])]) -> Result<(Vec<Proc>, Vec<Proc>)> {
    let hosts = [lan.host("p1")?, lan.host("p2")?];
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    let mut sort = |proc: Proc, fate: Fate| {
        if matches!(fate, Fate::Stays | Fate::Rings) { staying.push(proc) } else { ending.push(proc) }
    };
    for (n, tcp, fates) in calls {
        let [called, _] = pair(hosts, *n, *tcp, *fates);
        sort(called.called()?, fates[1]);
    }
    for (n, tcp, fates) in calls {
        let [called, caller] = pair(hosts, *n, *tcp, *fates);
        let direct = SocketAddr::from((called.host.ip4, port(called.number)));
        sort(caller.calls(called.number, by.unwrap_or(direct))?, fates[0]);
    }
    Ok((ending, staying))
}

/// Checks the state of each of these calls in the report: every fate that a call may have.
fn fates(report: &Value, legs: usize, numbers: &[(u16, &str)]) -> Result<()> {
    for (n, state) in numbers {
        expect(report, 1000 + n, 2000 + n, state, legs)?;
    }
    Ok(())
}

#[test]
fn calls_through_asterisk_are_told_as_tshark_reads_them() {
    lab(
        |lan| {
            let host = lan.host("a")?;
            host.add_address(VIP4.into())?;
            let mut asterisk = Asterisk::start(lan, host)?;
            asterisk.wait_ready()?;
            let capture = Capture::start(host, "any")?;
            let rt = Runtime::new()?;
            let server = SocketAddr::from((VIP4, 5060));
            // Phones with sound: one pair holds, resumes and stays; one pair hangs up.
            let phones = Calls::new(lan, &rt, 2, Manner::default())?;
            phones.set_up(SOON)?;
            let one = &phones.pairs[0].0;
            for (n, command) in [(0, Say::Hold), (1, Say::Resume)] {
                one.tell(command)?;
                answered(one, n)?;
            }
            phones.pairs[1].1.tell(Say::Hangup)?;
            let both = [Fate::Ends, Fate::Ends];
            let (mut ending, mut staying) = place(
                lan,
                Some(server),
                &[
                    (501, false, both),
                    (502, false, [Fate::Refused(486), Fate::Refused(486)]),
                    (503, false, [Fate::Cancelled, Fate::Cancelled]),
                    (504, false, [Fate::Rings, Fate::Rings]),
                    (505, false, [Fate::Stays, Fate::Stays]),
                ],
            )?;
            // A caller transfers the other party to a third one, by REFER.
            let party = |host, number, fate| Party { host, number, tcp: false, fate };
            let (p1, p2) = (lan.host("p1")?, lan.host("p2")?);
            for number in [2506, 2777] {
                staying.push(party(p2, number, Fate::Stays).called()?);
            }
            ending.push(party(p1, 1506, Fate::Moved).calls(2506, server)?);
            done(&mut ending)?;
            answers(&capture.file, "12505", 1)?;
            answers(&capture.file, "12777", 1)?;
            let file = capture.stop()?;
            drop(staying);
            let report = compared(&file, "Asterisk")?;
            ensure!(report["server"]["addresses"][0] == VIP4.to_string(), "{}", report["server"]);
            ensure!(report["server"]["certainty"] == "likely", "{}", report["server"]);
            fates(&report, 2, &[(501, "ended"), (502, "failed"), (503, "cancelled"), (504, "ringing"), (505, "up")])?;
            let stays = call(&report, 1505, 2505)?;
            ensure!(
                stays["recovery"]["audio"] == "relayed" && stays["recovery"]["signalling"] == "re-invite",
                "{:#}",
                stays["recovery"]
            );
            ensure!(stays["recovery"]["flows"].as_array().is_some_and(|f| f.len() >= 2), "{:#}", stays["recovery"]);
            let moved = call(&report, 1506, 2506)?;
            ensure!(moved["legs"][0]["refers"][0].as_str().is_some_and(|r| r.contains("2777")), "{moved:#}");
            ensure!(moved["legs"][0]["reinvites"] == 2 && moved["legs"][0]["state"] == "ended", "{moved:#}");
            ensure!(moved["legs"][1]["state"] == "up" && moved["state"] == "up", "{moved:#}");
            sound(&report, &phones)
        },
        "learn-asterisk",
    )
    .unwrap();
}

/// Waits for the answer to a phone's own re-INVITE.
fn answered(phone: &Phone, n: usize) -> Result<()> {
    wait::until("the answer to a re-INVITE", SOON, || match phone.state().own_reinvites.get(n) {
        Some((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// Waits until the capture holds the answer of the called party at this port.
fn answers(file: &Path, port: &str, hops: usize) -> Result<()> {
    wait::every(Duration::from_millis(300), "the call to be in the capture", SOON, || {
        let report = inspect(file, &[]).map_err(|e| format!("{e:#}"))?;
        let legs =
            report["calls"].as_array().into_iter().flatten().flat_map(|c| c["legs"].as_array().into_iter().flatten());
        let up = legs.filter(|l| l["state"] == "up" && text(l, "remote_addr").ends_with(port)).count();
        if up == hops { Ok(()) } else { Err(format!("{up} of {hops} legs to {port} are up")) }
    })
}

/// The report shows the phones' RTP where the phones sent it.
fn sound(report: &Value, phones: &Calls) -> Result<()> {
    let pair = &phones.pairs[0];
    let all = report["calls"].as_array().into_iter().flatten();
    let c = all.clone().find(|c| text(&c["from"], "user") == pair.0.number).context("the phones' call")?;
    ensure!(c["state"] == "up", "{c:#}");
    for leg in c["legs"].as_array().into_iter().flatten() {
        for way in ["received", "sent"] {
            let rtp = &leg["media"][0][way];
            ensure!(rtp["packets"].as_u64().is_some_and(|n| n > 40), "{way}: {leg:#}");
            ensure!(rtp["source_differs"] == false && rtp["payload_types"][0]["codec"].is_string(), "{way}: {leg:#}");
        }
    }
    let other = all.clone().find(|c| text(&c["from"], "user") == phones.pairs[1].0.number).context("the other call")?;
    ensure!(other["state"] == "ended" && other["ended_by"] == "callee", "{other:#}");
    Ok(())
}

#[test]
fn proxied_and_direct_calls_are_told_as_tshark_reads_them() {
    lab(
        |lan| {
            let host = lan.host("b")?;
            let _proxy = party::kamailio(lan, host)?;
            let captures = [Capture::start(host, "eth0")?, Capture::start(lan.host("p1")?, "any")?];
            let both = [Fate::Ends, Fate::Ends];
            let stays = [Fate::Stays, Fate::Stays];
            let moved = [Fate::Moved, Fate::Moved];
            let refused = [Fate::Refused(603), Fate::Refused(603)];
            let rings = [Fate::Rings, Fate::Rings];
            let server = SocketAddr::from((host.ip4, 5060));
            let proxied = [
                (601, false, both),
                (602, false, moved),
                (603, false, refused),
                (604, false, rings),
                (605, false, stays),
                (611, true, both),
                (612, true, refused),
            ];
            let (mut ending, staying) = place(lan, Some(server), &proxied)?;
            let direct = [
                (621, false, both),
                (622, false, [Fate::Cancelled, Fate::Cancelled]),
                (623, false, moved),
                (624, true, both),
            ];
            let (more, _) = place(lan, None, &direct)?;
            ending.extend(more);
            let nobody = Party { host: lan.host("p1")?, number: 1699, tcp: false, fate: Fate::Refused(404) };
            ending.push(nobody.calls(9999, server)?);
            done(&mut ending)?;
            answers(&captures[0].file, "12605", 1)?;
            let [at_proxy, at_phone] = captures.map(Capture::stop);
            let (at_proxy, at_phone) = (at_proxy?, at_phone?);
            drop(staying);
            let r = compared(&at_proxy, "Kamailio")?;
            ensure!(r["server"]["addresses"][0] == host.ip4.to_string(), "{}", r["server"]);
            fates(&r, 2, &[(601, "ended"), (602, "ended"), (603, "failed"), (604, "ringing"), (605, "up")])?;
            fates(&r, 2, &[(611, "ended"), (612, "failed")])?;
            let c = call(&r, 1611, 2611)?;
            ensure!(c["legs"][0]["transport"] == "tcp" && c["legs"][1]["transport"] == "tcp", "{c:#}");
            let left = |c: &Value| {
                c["recovery"]["signalling"] == "no" && text(&c["recovery"], "why").contains("the server is a proxy")
            };
            ensure!(left(c), "{:#}", c["recovery"]);
            let c = call(&r, 1605, 2605)?;
            ensure!(c["pairing"] == "same-dialog" && c["recovery"]["audio"] == "direct", "{c:#}");
            ensure!(left(c), "{:#}", c["recovery"]);
            ensure!(call(&r, 1699, 9999)?["code"] == 404, "{r:#}");
            let r = compared(&at_phone, "a phone's host")?;
            fates(
                &r,
                1,
                &[
                    (601, "ended"),
                    (605, "up"),
                    (621, "ended"),
                    (622, "cancelled"),
                    (623, "ended"),
                    (611, "ended"),
                    (624, "ended"),
                ],
            )?;
            ensure!(r["server"]["addresses"][0] == host.ip4.to_string(), "{}", r["server"]);
            let c = call(&r, 1621, 2621)?;
            ensure!(c["through_server"] == false && c["legs"][0]["partial"] == false, "{c:#}");
            joined(&lan.dir().join("joined.pcapng"), &[&at_proxy, &at_phone])
        },
        "learn-kamailio",
    )
    .unwrap();
}

/// Merges both files: several interfaces of different link types, and much of the traffic twice.
fn joined(to: &Path, files: &[&Path]) -> Result<()> {
    let out = Command::new("mergecap").arg("-w").arg(to).args(files).output().context("mergecap")?;
    ensure!(out.status.success(), "mergecap: {}", String::from_utf8_lossy(&out.stderr));
    let r = inspect(to, &[])?;
    ensure!(r["traffic"]["link_types"].as_array().map(Vec::len) == Some(2), "{}", r["traffic"]);
    fates(&r, 2, &[(601, "ended"), (602, "ended"), (603, "failed"), (604, "ringing"), (605, "up")])?;
    fates(&r, 1, &[(621, "ended"), (622, "cancelled"), (623, "ended")])?;
    let wrong = differences(&r, &tshark::messages(to)?);
    ensure!(wrong.is_empty(), "joined: {}", wrong.join("\n"));
    Ok(())
}
