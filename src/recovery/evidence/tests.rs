//! The numbers that the rules rest on. The rules themselves: `engine/tests/gone.rs` and `left_alone.rs`.

use super::{ASK_AGAIN, EVERY, LOOK, RTP_TIMEOUT};

#[test]
fn a_question_and_a_silence_hold_several_counts() {
    assert!(ASK_AGAIN > EVERY * 2, "a count before the answer, and one after it");
    assert!(RTP_TIMEOUT >= EVERY * 10 && LOOK > RTP_TIMEOUT * 2);
}
