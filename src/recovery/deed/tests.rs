use super::{Deed, Forecast};
use crate::config::Mode;
use crate::recovery::plan::Unpassable;
use crate::recovery::recoverability::Fate;

const FATES: [Fate; 6] = [
    Fate::Reinvited,
    Fate::PartialDialog,
    Fate::NotUdp,
    Fate::SingleLeg,
    Fate::Silent(Unpassable::KeysDiffer),
    Fate::Silent(Unpassable::NoCommonCodec),
];

#[test]
fn a_mode_does_no_more_than_its_name_says() {
    for fate in FATES {
        for audio in [false, true] {
            assert_eq!(Deed::of(Mode::Observe, fate, audio), Deed::Leave);
            assert_eq!(Deed::of(Mode::Audio, fate, audio), if audio { Deed::Relay } else { Deed::Leave });
        }
    }
    assert_eq!(Deed::of(Mode::Full, Fate::Reinvited, true), Deed::Reinvite);
    assert_eq!(
        Deed::of(Mode::Full, Fate::Reinvited, false),
        Deed::Reinvite,
        "phones that send to each other still have a dialog"
    );
    assert_eq!(Deed::of(Mode::Full, Fate::SingleLeg, false), Deed::End);
    assert_eq!(Deed::of(Mode::Full, Fate::PartialDialog, true), Deed::Leave);
}

#[test]
fn every_call_is_counted_once_and_every_one_that_is_not_kept_has_a_reason() {
    for mode in Mode::ALL {
        let mut forecast = Forecast::new(mode);
        for fate in FATES {
            forecast.add(mode, fate, fate == Fate::NotUdp || fate == Fate::Reinvited);
        }
        let Forecast { total, reinvited, relayed, left, ended, .. } = forecast;
        assert_eq!((total, reinvited + relayed + left + ended), (FATES.len(), FATES.len()), "{mode}");
        assert_eq!(forecast.reasons.values().sum::<usize>(), total - reinvited, "{mode}: {:?}", forecast.reasons);
        let expected = match mode {
            Mode::Observe => (0, 0, 6, 0),
            Mode::Audio => (0, 2, 4, 0),
            Mode::Full => (1, 0, 2, 3),
        };
        assert_eq!((reinvited, relayed, left, ended), expected, "{mode}");
    }
}
