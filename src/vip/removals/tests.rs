use super::{Place, Removals};
use ipnet::IpNet;
use proptest::prelude::*;

fn vip() -> IpNet {
    "10.0.0.100/24".parse().unwrap()
}

fn here() -> Place {
    (7, vip())
}

fn watching() -> Removals {
    let mut r = Removals::default();
    r.watch([vip()]);
    r
}

#[test]
fn what_was_asked_for_is_ours_once_and_the_next_is_somebody_elses() {
    let mut r = watching();
    r.asked(here());
    assert!(r.told(here()));
    assert!(!r.told(here()));
}

#[test]
fn a_removal_that_found_nothing_accounts_for_nothing() {
    let mut r = watching();
    // The end of a right removes the address twice: at once, and again with the order.
    r.asked(here());
    r.asked(here());
    r.refused(here());
    assert!(r.told(here()));
    assert!(!r.told(here()), "this one is somebody else's");
}

#[test]
fn another_interface_and_an_address_that_nobody_watches_are_apart() {
    let mut r = watching();
    r.asked(here());
    assert!(!r.told((8, vip())));
    let other: IpNet = "10.0.0.101/24".parse().unwrap();
    r.asked((7, other));
    r.watch([other]);
    assert!(!r.told((7, other)), "it was asked for before anybody watched: its news is never read");
    r.unwatch(&[vip()]);
    r.watch([vip()]);
    assert!(!r.told(here()));
}

#[test]
fn after_a_loss_everything_is_looked_at_as_somebody_elses() {
    let mut r = watching();
    r.asked(here());
    r.lost();
    assert!(!r.told(here()));
}

/// One change of the address in the kernel.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add,
    WeRemove,
    TheyRemove,
}

proptest! {
    /// Models the kernel: a removal succeeds if the address exists, and the kernel reports it once, later, in order.
    /// However late the reports are read, every foreign removal is noticed as long as this process removes nothing in
    /// between, and no own removal counts as foreign.
    #[test]
    fn ours_and_theirs_are_told_apart(
        steps in prop::collection::vec(prop_oneof![Just(Step::Add), Just(Step::WeRemove), Just(Step::TheyRemove)], 0..40),
        lag in 0_usize..5,
    ) {
        let mut r = watching();
        let (mut there, mut news, mut theirs, mut seen) = (false, Vec::new(), 0, 0);
        for step in steps {
            match step {
                Step::Add => there = true,
                Step::WeRemove => {
                    r.asked(here());
                    if std::mem::replace(&mut there, false) { news.push(()) } else { r.refused(here()) }
                }
                Step::TheyRemove => if std::mem::replace(&mut there, false) {
                    news.push(());
                    theirs += 1;
                },
            }
            while news.len() > lag {
                news.pop();
                seen += usize::from(!r.told(here()));
            }
        }
        for () in news {
            seen += usize::from(!r.told(here()));
        }
        prop_assert_eq!(seen, theirs);
    }
}
