//! The real agent with an etcd that requires TLS and client certificates.

use lab::authority::Authority;
use lab::lan::Lan;
use lab::node::{Agent, Member, Node};
use std::path::Path;

/// An agent that keeps trying, with each of these words in its log and in its status.
fn complains(agent: Agent, words: &[&str]) {
    agent.says("cannot register in etcd");
    let status = agent.comes_to("its status", |s| s["etcd"]["healthy"] == false && s["etcd"]["error"].is_string());
    let error = status["etcd"]["error"].as_str().unwrap().to_owned();
    for word in words {
        assert!(
            agent.log().contains(word) && error.contains(word),
            "{word:?} is not in {error:?} or not in\n{}",
            agent.log()
        );
    }
    agent.is_calm();
    agent.stops();
}

#[test]
fn etcd_by_tls_with_client_certificates() {
    let lan = Lan::new().unwrap();
    let (right, wrong) = (Authority::new(lan.dir(), "right"), Authority::new(lan.dir(), "wrong"));
    let server = right.issue(lan.dir(), &lan.host("e1").unwrap().ip4.to_string());
    let client = right.issue(lan.dir(), "node-a");
    let ca = right.file.display().to_string();
    let mut etcd = Member::new(
        &lan,
        "https",
        &["--cert-file", &server.0, "--key-file", &server.1, "--trusted-ca-file", &ca, "--client-cert-auth"],
        &[&format!("--cacert={ca}"), &format!("--cert={}", client.0), &format!("--key={}", client.1)],
    );
    etcd.start();
    let plain = Node::new(lan.host("a").unwrap(), "a", &etcd.url());
    let with = |ca: &Path, certificate: bool| {
        let mut section = format!("[etcd]\nca_file = \"{}\"\n", ca.display());
        if certificate {
            section += &format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", client.0, client.1);
        }
        plain.clone().with("[etcd]\n", &section)
    };
    complains(with(&wrong.file, true).start(), &["TLS to etcd failed", "`ca_file`"]);
    complains(with(&right.file, false).start(), &["`cert_file`"]);
    complains(plain.clone().with("https://", "http://").start(), &["https"]);
    let named = with(&right.file, true).with(&etcd.url(), &etcd.url().replace("10.44.0.11", "10.44.0.11.nip.invalid"));
    complains(named.start(), &["nip.invalid"]);

    let node = with(&right.file, true);
    let agent = node.start();
    agent.is_master();
    assert!(node.has_vip());
    let (code, out, _) = node.run(&["history"]);
    assert!(code == 0 && out.contains("first"), "{out}");
    agent.is_calm();
    agent.stops();
}
