//! Faults that tests put into an agent. Only with the cargo feature `faults`, which no release has.
//!
//! `KEEPCALL_FAULT` names them, as `learning:panic@/tmp/one,control:loop@/tmp/two`: part (`learning`, `recovery`, `control`), kind
//! (`panic` or `loop`), and the file whose appearance brings it about. Each happens once. `store:panic` makes the first stored call that is met one on
//! which the part panics whenever it handles it.

use super::part::{Doing, Pulse};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

struct Fault {
    part: String,
    loops: bool,
    file: PathBuf,
    done: Mutex<bool>,
}

struct Faults {
    all: Vec<Fault>,
    poison: Option<Mutex<Option<String>>>,
}

fn faults() -> &'static Faults {
    static FAULTS: OnceLock<Faults> = OnceLock::new();
    FAULTS.get_or_init(|| {
        let text = std::env::var("KEEPCALL_FAULT").unwrap_or_default();
        let one = |text: &str| {
            let (what, file) = text.split_once('@')?;
            let (part, kind) = what.split_once(':')?;
            Some(Fault { part: part.to_owned(), loops: kind == "loop", file: file.into(), done: Mutex::new(false) })
        };
        let poison = text.split(',').any(|t| t == "store:panic").then(Mutex::default);
        Faults { all: text.split(',').filter_map(one).collect(), poison }
    })
}

#[allow(clippy::panic)] // what this is for
fn point(part: &str) {
    let faults = faults();
    for fault in faults.all.iter().filter(|f| f.part == part && f.file.exists()) {
        if std::mem::replace(&mut *fault.done.lock().unwrap_or_else(PoisonError::into_inner), true) {
            continue;
        }
        if fault.loops {
            loop {
                std::hint::spin_loop();
            }
        }
        panic!("a fault was asked for");
    }
}

pub(super) fn in_calls(pulse: &Pulse) {
    pulse.does(Doing::Learning);
    point("learning");
    pulse.does(Doing::Recovery);
    point("recovery");
}

pub(super) fn in_control() {
    point("control");
}

#[allow(clippy::panic)] // what this is for
pub(super) fn at_stored(id: &str) {
    let Some(poison) = &faults().poison else { return };
    let is_it = {
        let mut poison = poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.get_or_insert_with(|| id.to_owned()) == id
    };
    assert!(!is_it, "a call was asked to be poison");
}
