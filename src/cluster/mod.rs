//! Who is master: the election (pure), its heartbeat, and the driver that runs both.

pub mod election;
pub mod record;
