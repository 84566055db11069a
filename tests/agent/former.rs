//! The calls that a real Asterisk still believes in after its address has gone, hung up over its manager interface.

use lab::agent::Agent;
use lab::asterisk::Extra;
use lab::scene::{SOON, Scene};
use lab::wait;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

/// An Asterisk whose manager user may do this.
fn extra(write: &str) -> Extra {
    let manager = format!(
        "[general]\nenabled=yes\nbindaddr=127.0.0.1\n[keepcall]\nsecret=s3cret\nread=call\nwrite={write}\n\
         deny=0.0.0.0/0.0.0.0\npermit=127.0.0.1/255.255.255.255\n"
    );
    Extra {
        modules: &["func_channel", "res_clioriginate"],
        files: vec![("manager.conf", manager)],
        extensions: "\n[stay]\nexten => s,1,Answer()\n same => n,Echo()\n".to_owned(),
    }
}

/// Two such servers and their agents, with the indices of master and backup.
fn scene(write: &str) -> (Scene, usize, usize) {
    let mut scene = Scene::new_with(&["a", "b"], || extra(write)).unwrap();
    for (server, setup) in scene.servers.iter().zip(&scene.setups) {
        let secret = server.host().dir.join("ami.secret");
        std::fs::write(&secret, "s3cret\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let more = format!("[instance.sip.ami]\nuser = \"keepcall\"\nsecret_file = {secret:?}\n");
        scene.agents.push(Agent::start_with(server.host(), setup, &more).unwrap());
    }
    let (old, new) = scene.armed().unwrap();
    (scene, old, new)
}

fn channels(scene: &Scene, node: usize) -> String {
    scene.servers[node].console("core show channels concise").unwrap()
}

fn former(scene: &Scene, node: usize, what: &str, good: impl Fn(&Value) -> bool) {
    wait::until(what, SOON, || {
        let former = scene.agents[node].instance().map_err(|e| format!("{e:#}"))?["calls"]["former"].clone();
        if good(&former) {
            return Ok(());
        }
        Err(format!("{former}\n{}\n{}", channels(scene, node), scene.agents[node].proc.tail()))
    })
    .unwrap();
}

#[test]
fn a_server_that_lost_the_address_forgets_its_calls_and_no_others() {
    let (mut scene, old, new) = scene("call,reporting");
    let calls = scene.calls(4, &[new]).unwrap();
    // Not of the instance: it must live.
    scene.servers[old].console("channel originate Local/s@stay application Echo").unwrap();
    let local = |scene: &Scene| channels(scene, old).lines().filter(|l| l.starts_with("Local/")).count();
    assert_eq!(local(&scene), 2, "{}", channels(&scene, old));
    let pjsip = |scene: &Scene, node| channels(scene, node).lines().filter(|l| l.starts_with("PJSIP/")).count();
    assert_eq!(pjsip(&scene, old), 8);

    let at = scene.switch_from(old).unwrap();
    scene.recovered(&calls, at).unwrap();
    former(&scene, old, "the old server to have none of the calls", |f| f["left"] == 0 && f["unknown"] == 0);
    assert_eq!((pjsip(&scene, old), local(&scene)), (0, 2), "{}", channels(&scene, old));
    // The phones have heard nothing of it.
    scene.in_conversation(&calls).unwrap();
    let notes = calls.notes();
    assert!(notes.is_empty(), "{notes:?}");

    // The way back: the server takes new calls, and the agent there has nothing to end.
    let at = scene.switch_from(new).unwrap();
    scene.recovered(&calls, at).unwrap();
    assert_eq!(scene.armed().unwrap(), (old, new));
    assert!(scene.agents[old].instance().unwrap()["calls"]["former"].is_null());
    scene.end(&calls, &[old, new, old]).unwrap();
}

#[test]
fn a_manager_user_that_may_not_hang_up_is_told_what_it_needs() {
    let (scene, old, new) = scene("reporting");
    let calls = scene.calls(2, &[new]).unwrap();
    let at = scene.switch_from(old).unwrap();
    scene.recovered(&calls, at).unwrap();
    former(&scene, old, "the missing permission", |f| {
        f["left"] == 4 && f["error"].as_str().is_some_and(|e| e.contains("write = call"))
    });
    let text = scene.agents[old].run(&["status"]).unwrap();
    assert!(text.contains("still believes in 4 channels"), "{text}");
    scene.in_conversation(&calls).unwrap();
    scene.end(&calls, &[old, new]).unwrap();
}
