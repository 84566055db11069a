//! Faults in the parts of a real agent: the part comes back, and address and role stay untouched. Needs the cargo
//! feature `faults`: the agent then does to itself what `KEEPCALL_FAULT` says, as soon as the file named there exists
//! (`src/faults.rs`).

use lab::lan::VIP4;
use lab::observer::Observer;
use lab::scene::{SOON, Scene};
use lab::{agent::Agent, unix_us, wait};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// Longest silence the observer may see while the machine is busy. A move of the address takes a hold, which is five
/// times as long here.
const SILENCE_MS: f64 = 400.0;

/// A program that starts the agent with these faults.
fn with_faults(scene: &Scene, i: usize, faults: &str) -> PathBuf {
    let path = scene.lan.dir().join(format!("keepcall-{i}"));
    let program = scene.setups[i].program.display();
    std::fs::write(&path, format!("#!/bin/sh\nKEEPCALL_FAULT='{faults}' exec {program} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Waits until the status satisfies `good`; retries if the command line is stuck.
fn comes_to(agent: &Agent, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, SOON, || {
        let status = agent.ask(&["status"]).map_err(|e| format!("{e:#}"))?;
        if good(&status) { Ok(status) } else { Err(format!("{status}\n{}", agent.proc.tail())) }
    })
    .unwrap()
}

fn part<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["parts"].as_array().into_iter().flatten().find(|p| p["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn what_fails_starts_again_and_neither_address_nor_role_takes_note() {
    const CALLS: &str = "calls of sip";
    const CONTROL: &str = "command line";
    let mut scene = Scene::new(&["a"]).unwrap();
    let at = |name: &str| scene.lan.dir().join(name);
    let kinds = ["learning:panic", "recovery:panic", "control:panic", "learning:loop", "control:loop"];
    let faults: Vec<String> = kinds.iter().map(|k| format!("{k}@{}", at(&k.replace(':', "-")).display())).collect();
    let do_it = |kind: &str| std::fs::write(at(&kind.replace(':', "-")), "").unwrap();
    let setup = lab::agent::Setup { program: with_faults(&scene, 0, &faults.join(",")), ..scene.setups[0].clone() };
    let agent = Agent::start(scene.host(0), &setup).unwrap();
    comes_to(&agent, "the agent to be master", |s| s["instances"][0]["role"] == "master");
    scene.agents.push(agent);
    let calls = scene.calls(2, &[0]).unwrap();
    let agent = &scene.agents[0];
    let observer = Observer::start(scene.lan.host("obs").unwrap(), VIP4).unwrap();
    wait::until("the address to answer", SOON, || if observer.is_answered() { Ok(()) } else { Err("silence".into()) })
        .unwrap();
    let before = agent.instance().unwrap()["epoch"].clone();

    let since = unix_us();
    let mut restarts = [0, 0];
    let steps: [&[(&str, &str, &str)]; 4] = [
        &[("learning:panic", CALLS, "learning panicked")],
        &[("recovery:panic", CALLS, "recovery panicked")],
        &[("control:panic", CONTROL, "command line panicked")],
        // Both at once: each takes the watchdog's ten seconds.
        &[("learning:loop", CALLS, "learning was stuck"), ("control:loop", CONTROL, "command line was stuck")],
    ];
    for step in steps {
        step.iter().for_each(|(kind, ..)| do_it(kind));
        for (kind, name, why) in step {
            let n = &mut restarts[usize::from(*name == CONTROL)];
            *n += 1;
            let (n, at) = (*n, unix_us());
            // The server still has its calls, and the agent learns them again.
            let status = comes_to(agent, &format!("the part to come back after {kind}"), |s| {
                let p = part(s, name);
                p["restarts"] == n && p["state"] == "running" && s["instances"][0]["calls"]["tracked"] == 2
            });
            assert!(part(&status, name)["why"].as_str().unwrap().contains(why), "{status}");
            let i = &status["instances"][0];
            assert!(i["role"] == "master" && i["epoch"] == before, "{status}");
            println!("{kind}: seen again after {} ms", (unix_us() - at) / 1000);
        }
    }
    let gap = observer.gap_after(since).unwrap();
    println!("longest silence of the address: {:.1} ms", gap.millis());
    assert!(gap.millis() < SILENCE_MS, "silent for {:.1} ms\n{}", gap.millis(), agent.proc.tail());
    let parts = agent.history().unwrap().iter().filter(|e| e["cause"] == "part").count();
    assert_eq!(parts, 3, "each failure of the part that has the calls is told");
    let (_, text) = (0, agent.run(&["status"]).unwrap());
    assert!(text.contains("calls of sip: running, restarted 3 times"), "{text}");

    // The part works as before: it sees the end of the calls, which the server carried all the time.
    assert_eq!(calls.hang_up(SOON).unwrap(), 2);
    scene.wait_stored(0, 0).unwrap();
    assert!(calls.violations().is_empty() && calls.phones().all(|p| p.state().reinvites.is_empty()));
}

#[test]
fn a_stored_call_that_makes_a_part_panic_is_passed_over_and_the_others_are_kept() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    for i in 0..2 {
        scene.setups[i].program = with_faults(&scene, i, "store:panic");
    }
    let (master, backup) = scene.start_agents().unwrap();
    let calls = scene.calls(3, &[]).unwrap();
    let status = comes_to(&scene.agents[backup], "one call to be passed over", |s| {
        let p = part(s, "calls of sip");
        p["passed_over"] == 1 && p["state"] == "running" && s["instances"][0]["calls"]["stored"] == 3
    });
    assert!(part(&status, "calls of sip")["why"].as_str().unwrap().contains("poison"), "{status}");
    assert_eq!(part(&status, "calls of sip")["restarts"], 1, "{status}");
    let at = scene.switch_from(master).unwrap();
    let kept = calls.wait_for(SOON, |c| lab::calls::is_reinvited(c, at));
    assert!(kept >= 2, "{kept} of 3 calls were kept");
    let status = scene.agents[backup].ask(&["status"]).unwrap();
    assert_eq!(part(&status, "calls of sip")["state"], "running", "{status}");
}
