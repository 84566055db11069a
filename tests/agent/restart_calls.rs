//! Calls on real servers during a restart of the agent: calls that the server carries, and calls that the agent
//! carries.

use lab::scene::{SOON, Scene};
use lab::{unix_us, wait};
use nix::sys::signal::Signal;

/// Ends the agent as half of a restart, or kills it, and starts it again.
fn restart(scene: &mut Scene, agent: usize, signal: Signal) {
    scene.agents[agent].proc.signal(signal).unwrap();
    wait::until("the agent to end", SOON, || match scene.agents[agent].proc.ended() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    scene.agents[agent].start_again().unwrap();
}

/// Waits until the agent counts this many calls of its server, and this many of its own.
fn counts(scene: &Scene, agent: usize, tracked: u64, carried: u64) {
    wait::until("the calls to be counted", SOON, || {
        let s = scene.agents[agent].instance().map_err(|e| format!("{e:#}"))?;
        let c = &s["calls"];
        if (c["tracked"].as_u64(), c["carried"].as_u64()) == (Some(tracked), Some(carried)) {
            Ok(())
        } else {
            Err(c.to_string())
        }
    })
    .unwrap();
}

#[test]
fn calls_outlive_restarts_of_the_agent_before_and_after_a_takeover() {
    let mut scene = Scene::new(&["a", "b"]).unwrap();
    // A start on a busy machine fits in it.
    for setup in &mut scene.setups {
        setup.hold = std::time::Duration::from_secs(3);
    }
    let (old, new) = scene.start_agents().unwrap();
    let calls = scene.calls(3, &[old, new]).unwrap();

    // The server keeps its calls all the time: no re-INVITEs, and no gap in the audio.
    for signal in [Signal::SIGUSR2, Signal::SIGKILL] {
        restart(&mut scene, old, signal);
        assert_eq!(scene.armed().unwrap(), (old, new));
        counts(&scene, old, 3, 0);
        scene.in_conversation(&calls).unwrap();
    }
    assert!(calls.phones().all(|p| p.state().reinvites.is_empty()), "a call that the server still has was re-INVITEd");

    // The calls learnt anew are good for a takeover.
    let at = unix_us();
    scene.lan.cut(&scene.agents[old].node).unwrap();
    scene.recovered(&calls, at).unwrap();
    counts(&scene, new, 0, 3);

    // Now the agent carries the calls. The kernel keeps relaying, and the next process resumes the calls.
    for signal in [Signal::SIGUSR2, Signal::SIGKILL] {
        let at = unix_us();
        restart(&mut scene, new, signal);
        scene.recovered(&calls, at).unwrap();
        counts(&scene, new, 0, 3);
    }
    scene.end(&calls, &[old, new]).unwrap();
    scene.wait_stored(new, 0).unwrap();
}
