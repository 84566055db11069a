use super::*;

const ETH0: &str = "net/ipv4/conf/eth0/forwarding";
const FORCED: &str = "net/ipv6/conf/eth0/force_forwarding";

fn host(values: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let values: BTreeMap<String, String> = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    move |name| values.get(name).cloned()
}

fn want(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: (*name).to_owned(), to: set_to(name) }).collect()
}

fn need(instance: &str, interface: &str) -> Need {
    Need { instance: instance.to_owned(), interface: interface.to_owned(), calls: true, owner: 7 }
}

/// The rules of the guard.
fn guard(ledger: &Ledger) -> Vec<String> {
    ledger.table("t", ["before", "needs"]).lines().filter(|l| l.ends_with("drop")).map(ToOwned::to_owned).collect()
}

#[test]
fn only_what_was_turned_on_here_is_guarded() {
    let mut ledger = Ledger::default();
    // A router for IPv4, not for IPv6.
    ledger.note(&want(&[ETH0, FORCED]), host(&[(ETH0, "1"), (ALL_V4, "1"), (FORCED, "0"), (ALL_V6, "0")]));
    assert_eq!(guard(&ledger), ["iifname \"eth0\" meta nfproto ipv6 counter drop"]);
    let mut ledger = Ledger::default();
    ledger.note(&want(&[ETH0, FORCED]), host(&[(ETH0, "0"), (ALL_V4, "0"), (FORCED, "0"), (ALL_V6, "0")]));
    assert_eq!(guard(&ledger).len(), 2);
    // Later looks find the values that this program set, and change nothing.
    let noted = ledger.clone();
    ledger.note(&want(&[ETH0, FORCED]), host(&[(ETH0, "1"), (FORCED, "1")]));
    assert_eq!(ledger.lift(host(&[(ETH0, "1"), (ALL_V4, "0"), (ALL_V6, "0")])), []);
    assert_eq!(ledger, noted);
    // An old kernel forwards IPv6 everywhere.
    let mut old = Ledger::default();
    old.note(&want(&[ALL_V6]), host(&[(ALL_V6, "0")]));
    assert_eq!(guard(&old), ["meta nfproto ipv6 counter drop"]);
}

#[test]
fn a_host_that_becomes_a_router_is_one() {
    let mut ledger = Ledger::default();
    ledger.note(&want(&[ETH0, FORCED]), host(&[(ETH0, "0"), (ALL_V4, "0"), (FORCED, "0"), (ALL_V6, "0")]));
    let mut both = ledger.clone();
    assert_eq!(ledger.lift(host(&[(ALL_V4, "1"), (ALL_V6, "0")])), []);
    assert_eq!(guard(&ledger), ["iifname \"eth0\" meta nfproto ipv6 counter drop"]);
    assert_eq!(both.lift(host(&[(ALL_V4, "1"), (ALL_V6, "1")])), [(FORCED.to_owned(), "0".to_owned())]);
    assert!(guard(&both).is_empty());
    // A router whose owner exempted this interface before stays so.
    let mut exempt = Ledger::default();
    exempt.note(&want(&[ETH0]), host(&[(ETH0, "0"), (ALL_V4, "1")]));
    assert_eq!(exempt.lift(host(&[(ALL_V4, "1")])), []);
    assert_eq!(guard(&exempt).len(), 1);
}

#[test]
fn the_memory_survives_in_the_table() {
    let mut ledger = Ledger::default();
    ledger.note(&want(&[ETH0, "net/ipv4/conf/all/send_redirects"]), |name| {
        Some(if name == ETH0 { "0" } else { "1" }.to_owned())
    });
    ledger.needs = BTreeSet::from([need("pbx", "eth0"), need("b", "eth1")]);
    let text = ledger.table("t", ["before", "needs"]);
    let mut read = Ledger::default();
    // Between quotes: the comments and the interfaces.
    read.read(text.split('"').skip(1).step_by(2));
    assert_eq!(read, ledger);
    assert_eq!(read.before[ETH0], Before { value: "0".to_owned(), router: true });
    // Of a table that is not ours, nothing reaches a path.
    let mut foreign = Ledger::default();
    let lies =
        ["set net/../../etc/passwd 1", "set net//x 1", "set kernel/panic 1", "set net/a -1", "set net/a ", "calls"];
    foreign.read(lies.into_iter());
    assert_eq!(foreign, Ledger::default());
}

#[test]
fn what_another_instance_needs_stays_and_forwarding_goes_back_first() {
    let names = ["net/ipv4/conf/all/send_redirects", "net/ipv6/conf/eth1/accept_ra", ALL_V6, ETH0];
    let mut ledger = Ledger::default();
    ledger.note(&want(&names), |_| Some("7".to_owned()));
    let mut one_left = ledger.clone();
    let back = one_left.give_up(&want(&["net/ipv4/conf/all/send_redirects", ALL_V6]));
    assert_eq!(back, [(ETH0.to_owned(), "7".to_owned())]);
    assert_eq!(one_left.before.len(), 3);
    let order: Vec<String> = ledger.give_up(&[]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(order, [ETH0, ALL_V6, "net/ipv4/conf/all/send_redirects", "net/ipv6/conf/eth1/accept_ra"]);
    assert!(ledger.before.is_empty());
}
