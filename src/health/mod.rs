//! Whether the local server works: checks, hysteresis, and the verdict.
