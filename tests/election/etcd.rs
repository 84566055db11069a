//! The etcd client against a real etcd.

use keepcall::config;
use keepcall::etcd::{Compare, Etcd, EtcdError, Op, WatchEvent};
use lab::loopback::EtcdServer;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn settings(endpoints: &[&str], user: Option<(&str, &Path)>) -> config::Etcd {
    config::Etcd {
        endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
        user: user.map(|u| u.0.to_owned()),
        password_file: user.map(|u| u.1.to_owned()),
        ca_file: None,
        cert_file: None,
        key_file: None,
        // Longer than any stall of this machine; only the test of a silent member waits for it.
        timeout: Duration::from_secs(5),
        lease_ttl: Duration::from_secs(60),
    }
}

/// An address without a listener.
fn dead(server: &EtcdServer, host: u8) -> String {
    format!("http://{}:2379", server.net.ip(host))
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_all_dead_ones_are_named() {
    let server = EtcdServer::start();
    let gone = dead(&server, 2);
    let etcd = Etcd::connect(&settings(&[&gone, &server.url], None)).unwrap();
    etcd.put("/k", b"v", 0).await.unwrap();
    assert_eq!(etcd.get("/k").await.unwrap().unwrap().value, b"v");
    let health = etcd.health();
    assert!(!health[0].healthy && health[1].healthy, "{health:?}");

    let other = dead(&server, 3);
    let none = Etcd::connect(&settings(&[&gone, &other], None)).unwrap();
    let e = none.put("/k", b"w", 0).await.unwrap_err();
    assert!(e.is_definite(), "{e}");
    let text = e.to_string();
    assert!(text.contains(&gone) && text.contains(&other) && text.to_lowercase().contains("refused"), "{text}");
}

/// A second way to a member that falls silent on command: connections stay open, and nothing passes.
struct Way {
    url: String,
    silent: Arc<AtomicBool>,
}

impl Way {
    fn open(server: &EtcdServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (silent, target) = (Arc::new(AtomicBool::new(false)), server.url.trim_start_matches("http://").to_owned());
        let mute = Arc::clone(&silent);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(&target).unwrap();
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    let mute = Arc::clone(&mute);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(n @ 1..) = from.read(&mut bytes) {
                            if !mute.load(Ordering::Relaxed) && to.write_all(&bytes[..n]).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        });
        Self { url, silent }
    }

    fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_silent_member_leaves_a_write_in_doubt_and_it_is_not_sent_again() {
    let server = EtcdServer::start();
    let way = Way::open(&server);
    let etcd = Etcd::connect(&settings(&[&way.url, &server.url], None)).unwrap();
    etcd.put("/y", b"", 0).await.unwrap();
    way.fall_silent();
    let e = etcd.txn(vec![], vec![Op::Put { key: "/x".into(), value: vec![1], lease: 0 }], vec![]).await.unwrap_err();
    assert!(!e.is_definite(), "{e}");
    let begin = Instant::now();
    assert_eq!(etcd.get("/x").await.unwrap(), None, "the write must not have gone to the other member");
    assert!(begin.elapsed() < etcd.timeout(), "the silent member must be tried last now");
}

#[tokio::test]
async fn a_guarded_transaction_does_not_wait_for_a_silent_member() {
    let server = EtcdServer::start();
    let way = Way::open(&server);
    let etcd = Etcd::connect(&settings(&[&way.url, &server.url], None)).unwrap();
    etcd.put("/y", b"", 0).await.unwrap();
    way.fall_silent();
    let put = |v: u8| vec![Op::Put { key: "/g".into(), value: vec![v], lease: 0 }];
    let begin = Instant::now();
    let (reply, copies) = etcd.txn_guarded(vec![Compare::Missing("/g".into())], put(1), vec![]).await.unwrap();
    assert!(reply.succeeded && copies, "{reply:?}");
    assert!(begin.elapsed() < Duration::from_millis(800), "{:?}", begin.elapsed());
    // From now on the silent member is tried last, so there is one copy only.
    let (reply, copies) = etcd.txn_guarded(vec![Compare::Missing("/g".into())], put(2), vec![]).await.unwrap();
    assert!(!reply.succeeded && !copies, "{reply:?}");
    // The silent member is named, although no request waits for it.
    let end = Instant::now() + Duration::from_secs(20);
    while etcd.health()[0].healthy {
        assert!(Instant::now() < end, "{:?}", etcd.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let none = Etcd::connect(&settings(&[&way.url], None)).unwrap();
    let e = none.txn_guarded(vec![], put(3), vec![]).await.unwrap_err();
    assert!(!e.is_definite() && e.to_string().contains(&way.url), "{e}");
}

#[tokio::test]
async fn transactions_compare_and_leases_end() {
    let server = EtcdServer::start();
    let etcd = Etcd::connect(&settings(&[&server.url], None)).unwrap();
    let put = |v: u8, lease| vec![Op::Put { key: "/a".into(), value: vec![v], lease }];
    let lease = etcd.grant().await.unwrap();
    assert!(lease.ttl >= Duration::from_secs(60));
    let first = etcd.txn(vec![Compare::Missing("/a".into())], put(1, lease.id), vec![]).await.unwrap();
    assert!(first.succeeded);
    let second = etcd.txn(vec![Compare::Missing("/a".into())], put(2, 0), vec![Op::Get("/a".into())]).await.unwrap();
    assert!(!second.succeeded);
    assert_eq!((second.reads[0][0].value.clone(), second.reads[0][0].lease), (vec![1], lease.id));
    etcd.keep_alive(lease.id).await.unwrap();
    etcd.revoke(lease.id).await.unwrap();
    assert_eq!(etcd.get("/a").await.unwrap(), None);
    assert!(matches!(etcd.keep_alive(lease.id).await, Err(EtcdError::LeaseGone { .. })));
    etcd.revoke(lease.id).await.unwrap();
}

#[tokio::test]
async fn a_watch_gives_a_snapshot_then_changes() {
    let server = EtcdServer::start();
    let etcd = Etcd::connect(&settings(&[&server.url], None)).unwrap();
    etcd.put("/w/1", b"a", 0).await.unwrap();
    let mut watch = etcd.watch("/w/");
    let mut next = async || tokio::time::timeout(lab::loopback::LONG, watch.recv()).await.unwrap().unwrap();
    assert!(matches!(next().await, WatchEvent::Snapshot { entries, .. } if entries.len() == 1));
    etcd.put("/w/2", b"b", 0).await.unwrap();
    assert!(matches!(next().await, WatchEvent::Put(kv) if kv.key == "/w/2"));
    etcd.delete("/w/1").await.unwrap();
    assert!(matches!(next().await, WatchEvent::Delete { key, .. } if key == "/w/1"));
}

#[tokio::test]
async fn passwords_and_permissions_are_told_apart() {
    let server = EtcdServer::start();
    let file = |name: &str, text: &str| {
        let p = server.dir.path().join(name);
        std::fs::write(&p, text).unwrap();
        p
    };
    for args in [
        &["user", "add", "root:r"][..],
        &["user", "add", "low:l"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        // etcd 3.4 only creates the root role itself if it is missing.
        let _ = server.ctl(&["role", "add", "root"]);
        assert!(server.ctl(args), "{args:?}");
    }
    let put = async |user| Etcd::connect(&settings(&[&server.url], user)).unwrap().put("/k", b"v", 0).await;
    let (good, bad, low) = (file("good", "r\n"), file("bad", "x\n"), file("low", "l\n"));
    put(Some(("root", good.as_path()))).await.unwrap();
    assert!(matches!(put(Some(("root", bad.as_path()))).await, Err(EtcdError::WrongPassword { .. })));
    assert!(matches!(put(Some(("low", low.as_path()))).await, Err(EtcdError::Denied { .. })));
    assert!(matches!(put(None).await, Err(EtcdError::Denied { .. })));
}
