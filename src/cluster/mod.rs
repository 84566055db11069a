//! Who is master: the election (pure), its heartbeat, and the driver that runs both.
