//! The server dies, and no other node can take over: the agent that stays master recovers the calls itself.

use lab::agent::Agent;
use lab::calls::Calls;
use lab::lan::Lan;
use lab::phone::Manner;
use lab::scene::{SOON, Scene};
use lab::{unix_us, wait};
use std::time::Duration;

/// An agent alone, as master.
fn alone() -> Scene {
    let mut scene = Scene::new(&["a"]).unwrap();
    becomes_master(&mut scene);
    scene
}

fn becomes_master(scene: &mut Scene) {
    let agent = Agent::start(scene.host(0), &scene.setups[0]).unwrap();
    scene.agents.push(agent);
    wait::until("the agent to be master", SOON, || {
        let s = scene.agents[0].instance().map_err(|e| format!("{e:#}"))?;
        if s["role"] == "master" && s["checks"][0]["state"] == "good" { Ok(()) } else { Err(s.to_string()) }
    })
    .unwrap();
}

fn newest(agent: &Agent) -> serde_json::Value {
    agent.history().unwrap().first().cloned().unwrap_or_default()
}

#[test]
fn the_only_node_recovers_the_calls_of_its_dead_server_and_the_next_server_takes_new_ones() {
    let mut scene = alone();
    let calls = scene.calls(4, &[0]).unwrap();
    let at = unix_us();
    scene.servers[0].crash();
    // Audio first: the server need not be back.
    scene.recovered(&calls, at).unwrap();
    let gap = calls.gaps(at).into_iter().max().unwrap_or_default();
    println!("server killed, no other node: longest silence {} ms", gap / 1000);
    scene.servers[0].start_again().unwrap();
    scene.servers[0].wait_ready().unwrap();
    let s = scene.agents[0].instance().unwrap();
    assert_eq!((s["calls"]["tracked"].as_u64(), s["calls"]["carried"].as_u64()), (Some(0), Some(4)), "{s}");
    let told = newest(&scene.agents[0]);
    assert_eq!((told["cause"].as_str(), told["calls"]["recovered"].as_u64()), (Some("server"), Some(4)), "{told}");

    // New calls beside them.
    let more = Calls::new_from(&scene.lan, scene.runtime(), 4, 2, Manner::default()).unwrap();
    more.set_up(SOON).unwrap();
    wait::until("the new calls to be learnt", SOON, || {
        let s = scene.agents[0].instance().map_err(|e| format!("{e:#}"))?;
        if s["calls"]["tracked"] == 2 && s["calls"]["stored"] == 6 { Ok(()) } else { Err(s["calls"].to_string()) }
    })
    .unwrap();
    scene.in_conversation(&calls).unwrap();
    assert!(more.phones().all(|p| p.state().reinvites.is_empty()), "a call of the new server was touched");

    // The server dies once more, and is back before any check of its answers could notice.
    let at = unix_us();
    scene.servers[0].crash();
    scene.servers[0].start_again().unwrap();
    scene.recovered(&more, at).unwrap();
    scene.in_conversation(&calls).unwrap();
    assert_eq!(calls.hang_up(SOON).unwrap(), 4);
    assert_eq!(more.hang_up(SOON).unwrap(), 2);
    assert!(calls.violations().is_empty() && more.violations().is_empty(), "{:?}", calls.violations());
    scene.wait_stored(0, 0).unwrap();
}

#[test]
fn a_restart_of_agent_and_server_together_leaves_no_dead_call_up() {
    let mut scene = alone();
    let calls = scene.calls(2, &[0]).unwrap();
    scene.agents[0].proc.kill();
    let at = unix_us();
    scene.servers[0].crash();
    scene.servers[0].start_again().unwrap();
    scene.servers[0].wait_ready().unwrap();
    scene.agents[0].start_again().unwrap();
    scene.recovered(&calls, at).unwrap();
    assert_eq!(calls.hang_up(SOON).unwrap(), 2);
    scene.wait_stored(0, 0).unwrap();
}

/// A wrapper's or a worker's process may be watched by mistake: its end proves nothing.
#[test]
fn calls_whose_ports_are_still_there_are_not_touched_when_the_watched_process_ends() {
    let mut scene = Scene::new(&["a"]).unwrap();
    let lan: &Lan = &scene.lan;
    let host = lan.host("a").unwrap().clone();
    let wrapper = host.spawn("wrapper", &["sleep", "600"]).unwrap();
    let pidfile = host.dir.join("wrapper.pid");
    std::fs::write(&pidfile, wrapper.pid().to_string()).unwrap();
    scene.setups[0].server_pidfile = Some(pidfile.clone());
    becomes_master(&mut scene);
    let calls = scene.calls(2, &[0]).unwrap();
    drop(wrapper);
    let next = host.spawn("wrapper", &["sleep", "600"]).unwrap();
    std::fs::write(&pidfile, next.pid().to_string()).unwrap();
    wait::until("the check to see the next process", SOON, || {
        let s = scene.agents[0].instance().map_err(|e| format!("{e:#}"))?;
        let detail = format!("process {} is running", next.pid());
        let told = |c: &serde_json::Value| c["last"]["detail"] == *detail;
        if s["checks"].as_array().is_some_and(|all| all.iter().any(told)) { Ok(()) } else { Err(s.to_string()) }
    })
    .unwrap();
    // Longer than the wait for a handover.
    let seen = unix_us();
    assert_eq!(calls.wait_for(Duration::from_secs(4), |_| unix_us() > seen + 3_500_000), 2);
    scene.in_conversation(&calls).unwrap();
    assert!(calls.phones().all(|p| p.state().reinvites.is_empty()));
    let s = scene.agents[0].instance().unwrap();
    assert_eq!((s["calls"]["tracked"].as_u64(), s["calls"]["carried"].as_u64()), (Some(2), Some(0)), "{s}");
}
