//! The session description in a message's body.

pub(super) use crate::sip::body::{Description, description};
