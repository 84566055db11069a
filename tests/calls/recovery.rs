//! Recovery with other kinds of servers and phones than the demo's: real agents, real etcd, hosts made of namespaces.
//! Needs root.

mod b2bua;
mod flood;
mod independent;
mod proxy;
mod sipp;
mod stranger;
mod stray;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One lab at a time: two would compete for the processor, and a hold of less than a second would run out.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
