use super::*;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn lines(port: u16) -> Lines {
    std::iter::once((port > 0).then(|| at(port))).collect()
}

fn seconds(n: u64) -> Time {
    Time::from_nanos(n * 1_000_000_000)
}

#[test]
fn a_packet_is_judged_by_the_description_of_its_time() {
    let mut f = Force::default();
    let judge = |f: &Force, port, now| f.judge(0, false, 0, at(port), seconds(now)).0.map(|at| at.port());
    assert_eq!(judge(&f, 4000, 0), None);
    f.described(0, false, lines(4000));
    // Early media.
    assert_eq!((judge(&f, 4000, 0), judge(&f, 4002, 0)), (None, Some(4000)));
    f.agreed(0, seconds(1));
    // An offer of another port: either port, until it is refused or answered.
    f.described(0, false, lines(6000));
    assert_eq!((judge(&f, 4000, 10), judge(&f, 6000, 10), judge(&f, 5000, 10)), (None, None, Some(4000)));
    f.refused(0);
    assert_eq!((judge(&f, 4000, 10), judge(&f, 6000, 10)), (None, Some(4000)));
    f.described(0, false, lines(6000));
    f.agreed(0, seconds(20));
    f.agreed(0, seconds(21));
    assert_eq!((judge(&f, 4000, 21), judge(&f, 4000, 23), judge(&f, 6000, 23)), (None, Some(6000), None));
    assert_eq!(f.judge(0, false, 0, at(1), seconds(21)).1, Some(seconds(22)));
    // Held in the old style, or refused: nothing to compare with.
    f.described(0, false, lines(0));
    f.agreed(0, seconds(30));
    assert_eq!((judge(&f, 4000, 40), judge(&f, 6000, 40)), (None, None));
}
