use super::{Deed, Forecast};
use crate::config::Mode;
use crate::recovery::permitted::Doubtful;
use crate::recovery::plan::Unpassable;
use crate::recovery::recoverability::Fate;

const FATES: [Fate; 8] = [
    Fate::Reinvited,
    Fate::Proxied,
    Fate::PartialDialog,
    Fate::NotUdp,
    Fate::SingleLeg,
    Fate::Doubtful(Doubtful { confidence: 65, needed: 80 }),
    Fate::Silent(Unpassable::KeysDiffer),
    Fate::Silent(Unpassable::NoCommonCodec),
];

#[test]
fn a_mode_does_no_more_than_its_name_says() {
    for fate in FATES.into_iter().filter(|f| *f != Fate::Proxied) {
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
    assert_eq!(Deed::of(Mode::Full, Fate::SingleLeg, false), Deed::Leave);
    assert_eq!(Deed::of(Mode::Full, Fate::PartialDialog, true), Deed::Relay);
    assert!(Mode::ALL.into_iter().all(|mode| Deed::of(mode, Fate::Proxied, true) == Deed::HandOn));
}

#[test]
fn every_call_is_counted_once_and_every_one_that_is_not_kept_has_a_reason() {
    for mode in Mode::ALL {
        let mut forecast = Forecast::new(mode);
        for fate in FATES {
            forecast.add(mode, fate, fate == Fate::NotUdp || fate == Fate::Reinvited);
        }
        let Forecast { total, reinvited, proxied, relayed, left, .. } = forecast;
        assert_eq!((total, reinvited + proxied + relayed + left), (FATES.len(), FATES.len()), "{mode}");
        let reasons = forecast.reasons.values().sum::<usize>();
        assert_eq!(reasons, total - reinvited - proxied, "{mode}: {:?}", forecast.reasons);
        let expected = match mode {
            Mode::Observe => (0, 1, 0, 7),
            Mode::Audio => (0, 1, 2, 5),
            Mode::Full => (1, 1, 1, 5),
        };
        assert_eq!((reinvited, proxied, relayed, left), expected, "{mode}");
    }
}
