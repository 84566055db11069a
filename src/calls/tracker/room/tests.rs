use super::*;
use proptest::prelude::*;

fn settings(max_legs: usize) -> TrackerSettings {
    TrackerSettings {
        vips: Vec::new(),
        sip_ports: Vec::new(),
        advertised: crate::sip::advertised::Advertised::default(),
        pair_header: None,
        emergency: Vec::new(),
        max_legs,
        one_sided: false,
    }
}

fn footprint(stage: Stage, source: u8, bytes: usize) -> Footprint {
    Footprint { stage, urgent: false, source: IpAddr::from([10, 0, 0, source]), bytes, long: 0 }
}

#[test]
fn the_oldest_goes_unless_a_source_has_more_than_its_share() {
    let mut room = Room::new(&settings(400));
    for slot in 0..100 {
        room.put(slot, footprint(Stage::Waiting, slot as u8, 100));
    }
    assert_eq!(room.displaced(Stage::Waiting, false), None);
    room.put(100, footprint(Stage::Waiting, 200, 100));
    assert_eq!(room.displaced(Stage::Waiting, false), Some(0), "the oldest of all");
    room.leave(0);
    for slot in 101..120 {
        room.put(slot, footprint(Stage::Waiting, 200, 100));
        let gone = room.displaced(Stage::Waiting, false).unwrap();
        assert_eq!(gone, if slot <= 111 { slot - 100 } else { slot - 12 }, "then that of the greedy one");
        room.leave(gone);
    }
    // A leg that was answered has left the line.
    assert_eq!(room.unanswered(), 100);
    room.put(50, footprint(Stage::Up, 50, 100));
    assert_eq!((room.unanswered(), room.answered()), (99, 1));
}

#[test]
fn bytes_count_as_well_as_legs() {
    let mut room = Room::new(&settings(400));
    room.put(0, footprint(Stage::Waiting, 1, 100));
    room.put(1, footprint(Stage::Waiting, 2, 100 * SMALL_LEG));
    assert_eq!(room.displaced(Stage::Waiting, false), Some(0));
    room.leave(0);
    assert_eq!(room.displaced(Stage::Waiting, false), None);
}

fn stage() -> impl Strategy<Value = Stage> {
    proptest::sample::select(vec![Stage::Claimed, Stage::Waiting, Stage::Early, Stage::Up, Stage::Ended])
}

proptest! {
    /// Whatever legs do, the sums equal those of a plain list. If the caller evicts as told, no stage exceeds its room.
    #[test]
    fn sums_are_right_and_limits_hold(
        steps in proptest::collection::vec((0..300_u32, stage(), any::<bool>(), 0..40_u8, 0..9000_usize, 0..6000_usize, 0..8_u8), 1..400)
    ) {
        let mut room = Room::new(&settings(200));
        let mut plain: std::collections::HashMap<u32, Footprint> = std::collections::HashMap::new();
        for (slot, stage, urgent, source, bytes, long, leave) in steps {
            if leave == 0 {
                room.leave(slot);
                plain.remove(&slot);
            } else {
                let long = if stage == Stage::Waiting && long > 3000 { long } else { 0 };
                let new = Footprint { urgent, long, ..footprint(stage, source, bytes) };
                room.put(slot, new);
                plain.insert(slot, new);
                while let Some(gone) = room.displaced(stage, urgent) {
                    prop_assert!(plain.remove(&gone).is_some_and(|g| g.stage == stage && g.urgent == urgent));
                    room.leave(gone);
                }
                while let Some(cut) = room.long_winded() {
                    let g = plain.get_mut(&cut).unwrap();
                    prop_assert!(g.long > 0);
                    g.long = 0;
                    room.put(cut, *g);
                }
            }
            let of = |stages: &[Stage]| plain.values().filter(|g| stages.contains(&g.stage)).count();
            prop_assert_eq!(room.answered(), of(&[Stage::Early, Stage::Up]));
            prop_assert_eq!(room.unanswered(), of(&[Stage::Claimed, Stage::Waiting]));
            prop_assert_eq!(room.all(), plain.len());
            prop_assert_eq!(room.bytes(), plain.values().map(|g| g.bytes).sum::<usize>());
            prop_assert_eq!(room.long_bytes.used(), plain.values().map(|g| g.long).sum::<usize>());
            prop_assert!(of(&[Stage::Waiting]) <= 2 * 64 && room.long_bytes.used() <= 64 << 10);
        }
    }
}
