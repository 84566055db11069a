//! The session description in a message's body.

pub(in crate::calls) use crate::sip::body::{Description, description};
