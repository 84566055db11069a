use super::*;

fn verdict(audio: Audio, signalling: Signalling, why: &str) -> Recovery {
    Recovery { audio, signalling, why: why.to_owned(), flows: Vec::new() }
}

#[test]
fn a_reason_names_the_kind_and_no_address() {
    let single = verdict(Audio::No, Signalling::No, "keepcall knows only one leg; the party gets BYE");
    assert_eq!(reason(&single), "keepcall knows only one leg");
    let why = "both parties get a re-INVITE; the audio passes 192.0.2.1:4000, which is the address of neither";
    let elsewhere = verdict(Audio::Elsewhere, Signalling::ReInvite, why);
    assert_eq!(reason(&elsewhere), "the audio passes (address), which is the address of neither");
    assert_eq!(reason(&Recovery::no("the file ends")), "the file ends");
}

#[test]
fn the_line_counts_every_answered_call_once() {
    let lost = |calls, why: &str| Lost { calls, why: why.to_owned() };
    let all = vec![lost(40, "a"), lost(20, "b"), lost(4, "c"), lost(2, "d"), lost(1, "e"), lost(1, "f")];
    let sum = Summary { answered: 768, kept: 700, audio_only: 3, elsewhere: 2, lost: all };
    assert_eq!(
        sum.line(),
        "of 768 answered calls 700 would be kept (3 of them with audio, but without signalling); the rest: 40: a, \
         20: b, 4: c, 2: d, 1: e, 1 for other reasons; 2 answered calls do not pass the server"
    );
    assert_eq!(Summary { answered: 1, kept: 1, ..Summary::default() }.line(), "of 1 answered call 1 would be kept");
    assert_eq!(Summary::default().line(), "");
}
