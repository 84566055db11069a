//! Calls on real servers at changes of master: planned, by death, and repeated.

use lab::calls::Calls;
use lab::phone::{Command, Manner, Phase};
use lab::scene::{SOON, Scene};
use lab::{unix_us, wait};

/// The first call's caller holds and resumes, through whatever carries the call now.
fn hold_and_resume(calls: &Calls) {
    let (caller, called) = &calls.pairs[0];
    for (command, theirs, ours) in [(Command::Hold, "recvonly", "sendonly"), (Command::Resume, "sendrecv", "sendrecv")]
    {
        let (before, heard) = (caller.state().own_reinvites.len(), called.state().reinvites.len());
        caller.tell(command).unwrap();
        wait::until("the other party to take part in the re-INVITE", SOON, || {
            let (own, other) = (caller.state(), called.state());
            let answered = own.own_reinvites.get(before).is_some_and(|r| r.0 == 200) && own.remote_direction == theirs;
            let relayed = other.reinvites.get(heard).is_some_and(|r| r.code == 200 && r.acked_at.is_some());
            if answered && relayed && other.remote_direction == ours {
                return Ok(());
            }
            Err(format!(
                "{:?} {} / {:?} {}",
                own.own_reinvites, own.remote_direction, other.reinvites, other.remote_direction
            ))
        })
        .unwrap();
    }
}

#[test]
fn the_server_that_lost_the_address_does_not_reach_the_phones() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    let (old, new) = scene.start_agents().unwrap();
    let calls = scene.calls(4, &[new]).unwrap();
    let at = scene.switch_from(old).unwrap();
    scene.recovered(&calls, at).unwrap();

    // The old server still has all dialogs, with the right tags: its BYEs would end the calls.
    let channels = || scene.servers[old].console("core show channels count").unwrap();
    assert!(channels().contains("8 active channels"), "{}", channels());
    scene.servers[old].console("channel request hangup all").unwrap();
    wait::until("the old server to have ended its calls", SOON, || {
        let count = channels();
        if count.contains("0 active channels") { Ok(()) } else { Err(count) }
    })
    .unwrap();
    scene.in_conversation(&calls).unwrap();
    let notes = calls.notes();
    assert!(notes.is_empty(), "{notes:?}");

    hold_and_resume(&calls);
    scene.in_conversation(&calls).unwrap();
    scene.end(&calls, &[old, new]).unwrap();
    scene.wait_stored(new, 0).unwrap();
}

#[test]
fn calls_outlive_a_switchover_the_way_back_and_then_the_death_of_the_host() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    for (server, setup) in scene.servers.iter().zip(&mut scene.setups) {
        setup.on_backup = Some(server.console_command("core restart now"));
    }
    let (first, second) = scene.start_agents().unwrap();
    let calls = scene.calls(4, &[second]).unwrap();

    let at = scene.switch_from(first).unwrap();
    scene.recovered(&calls, at).unwrap();
    // The hook has restarted the server: it is fit again, and has no knowledge of the calls.
    assert_eq!(scene.armed().unwrap(), (second, first));
    scene.wait_stored(first, 4).unwrap();

    let at = scene.switch_from(second).unwrap();
    scene.recovered(&calls, at).unwrap();
    assert_eq!(scene.armed().unwrap(), (first, second));
    hold_and_resume(&calls);
    // An agreement from a host's last moments dies with it: a call's state in etcd lags some 50 ms.
    scene.in_conversation(&calls).unwrap();

    let at = unix_us();
    scene.lan.cut(&scene.agents[first].node).unwrap();
    scene.recovered(&calls, at).unwrap();
    hold_and_resume(&calls);
    scene.end(&calls, &[first, second, first, second]).unwrap();
}

#[test]
fn phones_that_speak_from_another_port_than_they_listen_on_keep_their_audio() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    let (old, new) = scene.start_agents().unwrap();
    let calls = scene.calls_of(3, Manner { speak_elsewhere: true, ..Manner::default() }, &[new]).unwrap();
    // The relay uses the real source, which is learnt from a few packets of each phone.
    wait::until("the source of every phone's audio", SOON, || {
        let rows = scene.agents[new].ask(&["calls"]).map_err(|e| format!("{e:#}"))?;
        let legs: Vec<_> = rows.as_array().into_iter().flatten().flat_map(|c| c["legs"].as_array()).flatten().collect();
        let known = legs.iter().filter(|l| !l["media_source"].is_null() && l["media_source"] != l["media"]).count();
        if known == 6 { Ok(()) } else { Err(format!("{known} of {} legs", legs.len())) }
    })
    .unwrap();
    let at = unix_us();
    scene.lan.cut(&scene.agents[old].node).unwrap();
    scene.recovered(&calls, at).unwrap();
    scene.end(&calls, &[old, new]).unwrap();
}

#[test]
fn an_agent_that_is_stopped_hands_over_and_comes_back_as_backup() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    let (old, new) = scene.start_agents().unwrap();
    let calls = scene.calls(3, &[new]).unwrap();
    let at = unix_us();
    assert!(scene.agents[old].proc.stop(SOON).unwrap(), "the agent did not stop by itself");
    scene.recovered(&calls, at).unwrap();

    let host = scene.host(old).clone();
    assert!(!host.has_address(lab::lan::VIP4.into()).unwrap() && !host.has_address(lab::lan::VIP6.into()).unwrap());
    // What remains: the moved calls' phones stay closed to the living server.
    assert_eq!(host.exec(&["nft", "list", "tables"]).unwrap().trim(), "table inet keepcall-fence-sip");
    scene.servers[old].console("channel request hangup all").unwrap();
    scene.in_conversation(&calls).unwrap();

    let again = lab::agent::Agent::start(&host, &scene.setups[old]).unwrap();
    scene.agents[old] = again;
    assert_eq!(scene.armed().unwrap(), (new, old));
    scene.wait_stored(old, 3).unwrap();
    scene.in_conversation(&calls).unwrap();

    // The old node can take back the calls that it handed over.
    let at = scene.switch_from(new).unwrap();
    scene.recovered(&calls, at).unwrap();
    scene.end(&calls, &[old, new, old]).unwrap();
}

#[test]
fn a_single_node_adopts_its_own_calls_after_a_restart_of_the_agent() {
    let mut scene = Scene::new(&["a"]).unwrap();
    let agent = lab::agent::Agent::start(scene.host(0), &scene.setups[0]).unwrap();
    scene.agents.push(agent);
    let master = |scene: &Scene| {
        wait::until("the agent to be master", SOON, || {
            let s = scene.agents[0].instance().map_err(|e| format!("{e:#}"))?;
            if s["role"] == "master" { Ok(()) } else { Err(s.to_string()) }
        })
        .unwrap();
    };
    master(&scene);
    let calls = scene.calls(3, &[0]).unwrap();

    assert!(scene.agents[0].proc.stop(SOON).unwrap(), "the agent did not stop by itself");
    assert!(!scene.host(0).has_address(lab::lan::VIP4.into()).unwrap());
    scene.agents[0] = lab::agent::Agent::start(scene.host(0), &scene.setups[0]).unwrap();
    master(&scene);
    scene.in_conversation(&calls).unwrap();
    assert!(calls.phones().all(|p| p.state().reinvites.is_empty()), "a call that the server still has was re-INVITEd");
    let s = scene.agents[0].instance().unwrap();
    assert_eq!((s["calls"]["tracked"].as_u64(), s["calls"]["carried"].as_u64()), (Some(3), Some(0)), "{s}");

    // The server ends them, and the agent that adopted them notices.
    assert_eq!(calls.hang_up(SOON).unwrap(), 3);
    scene.wait_stored(0, 0).unwrap();
    assert!(calls.phones().all(|p| p.state().phase == Phase::Ended));
    assert!(calls.violations().is_empty(), "{:?}", calls.violations());
}

#[test]
fn an_address_that_was_left_behind_is_removed_at_the_start() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    for setup in &mut scene.setups {
        setup.server_pidfile = None;
    }
    let agent = lab::agent::Agent::start(scene.host(0), &scene.setups[0]).unwrap();
    scene.agents.push(agent);
    wait::until("the first agent to have the VIP", SOON, || {
        if scene.host(0).has_address(lab::lan::VIP4.into()).unwrap() { Ok(()) } else { Err("not yet".into()) }
    })
    .unwrap();
    // Added by hand, as a /32 and a /128: the kernel would answer for them whatever their prefix.
    for vip in [lab::lan::VIP4.into(), lab::lan::VIP6.into()] {
        scene.host(1).add_address(vip).unwrap();
    }
    let agent = lab::agent::Agent::start(scene.host(1), &scene.setups[1]).unwrap();
    scene.agents.push(agent);
    wait::until("the second agent to remove what is not its own", SOON, || {
        let has = [lab::lan::VIP4.into(), lab::lan::VIP6.into()].map(|vip| scene.host(1).has_address(vip).unwrap());
        if has == [false, false] { Ok(()) } else { Err(format!("{has:?}")) }
    })
    .unwrap();
    assert_eq!(scene.armed().unwrap(), (0, 1));
    scene.answered_by(&[0]).unwrap();
}

/// UDP packets that `host` sends from the virtual address, one line each, from now on.
fn overhear(host: &lab::lan::Host) -> lab::proc::Proc {
    let vip = lab::lan::VIP4.to_string();
    let filter = ["udp", "and", "src", "host", vip.as_str()];
    let dump = host.spawn(
        "said",
        &[&["tcpdump", "-i", "eth0", "-Q", "out", "-n", "-l", "--immediate-mode"][..], &filter].concat(),
    );
    let dump = dump.unwrap();
    wait::until("tcpdump to listen", SOON, || {
        let log = std::fs::read_to_string(&dump.log).unwrap_or_default();
        if log.contains("listening on") { Ok(()) } else { Err(log) }
    })
    .unwrap();
    dump
}

fn packets(dump: &lab::proc::Proc) -> Vec<String> {
    let log = std::fs::read_to_string(&dump.log).unwrap();
    log.lines().filter(|l| l.contains(" IP ")).map(str::to_owned).collect()
}

/// The newest change of master, once its three calls have this outcome.
fn newest(agent: &lab::agent::Agent, calls: &str) -> serde_json::Value {
    wait::until("the takeover in the history", SOON, || {
        let all = agent.history().map_err(|e| format!("{e:#}"))?;
        let newest = all.first().cloned().unwrap_or_default();
        let told = newest["calls"][calls] == 3 && newest["forecast"].is_array();
        if told { Ok(newest) } else { Err(newest.to_string()) }
    })
    .unwrap()
}

#[test]
fn observe_touches_no_call_audio_relays_it_and_history_tells_what_would_have_been() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    for (server, setup) in scene.servers.iter().zip(&mut scene.setups) {
        setup.on_backup = Some(server.console_command("core restart now"));
    }
    let (old, new) = scene.start_agents().unwrap();
    scene.agents[new].run(&["mode", lab::agent::INSTANCE, "observe", "--yes"]).unwrap();
    let calls = scene.calls(3, &[new]).unwrap();
    let said = overhear(scene.host(new));
    let at = scene.switch_from(old).unwrap();
    let entry = newest(&scene.agents[new], "left");
    let forecast = |i: usize, mode: &str, deed: &str| {
        let f = &entry["forecast"][i];
        assert!(f["mode"] == mode && f["total"] == 3 && f[deed] == 3, "{entry}");
    };
    forecast(0, "observe", "left");
    forecast(1, "audio", "relayed");
    forecast(2, "full", "reinvited");
    wait::until("the phones to have heard nothing for two seconds", SOON, || {
        let last = calls.phones().filter_map(|p| p.state().arrivals.last().copied()).max().unwrap_or(0);
        if last > at && unix_us() < last + 2_000_000 { Err(format!("{last}")) } else { Ok(()) }
    })
    .unwrap();
    assert_eq!(packets(&said), Vec::<String>::new(), "the agent was to touch nothing");
    let tables = scene.host(new).exec(&["nft", "list", "ruleset"]).unwrap();
    assert!(!tables.contains(&scene.lan.host("p1").unwrap().ip4.to_string()), "{tables}");

    // An order on either node counts for both, at once.
    assert_eq!(scene.armed().unwrap(), (new, old));
    let reply = scene.agents[old].ask(&["mode", lab::agent::INSTANCE, "audio", "--yes"]).unwrap();
    assert!(reply["now"]["mode"] == "audio" && reply["now"]["nodes"].as_array().unwrap().len() == 2, "{reply}");
    let status = scene.agents[new].instance().unwrap();
    assert!(status["mode"]["mode"] == "audio" && status["mode"]["source"] == "etcd", "{status}");

    let said = overhear(scene.host(old));
    scene.switch_from(new).unwrap();
    let entry = newest(&scene.agents[old], "relayed");
    assert!(entry["forecast"][1]["mode"] == "full" && entry["forecast"][1]["reinvited"] == 3, "{entry}");
    scene.in_conversation(&calls).unwrap();
    let said = packets(&said);
    let sip: Vec<_> = said.iter().filter(|l| l.contains(".5060 >") || l.contains(".5070 >")).collect();
    assert!(said.len() > 100 && sip.is_empty(), "{} packets, of SIP: {sip:?}", said.len());
    assert!(calls.phones().all(|p| p.state().reinvites.is_empty() && p.state().bye_received.is_none()));
}
