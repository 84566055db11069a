//! The keepcall command.

fn main() {}
