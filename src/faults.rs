//! Faults that tests put into an agent. Only with the cargo feature `faults`, which no release has.
//!
//! `KEEPCALL_FAULT` names them, as `learning:panic@/tmp/one,control:loop@/tmp/two`: part (`learning`, `recovery`, `control`, `hep`, `ami`,
//! `esl`), kind (`panic` or `loop`), and the file whose appearance brings it about. Each happens once. `lease:refuse@/tmp/three` lasts as long
//! as the file is there: the kernel takes no hold. `store:panic` makes the first stored call that is met one on which the part panics
//! whenever it handles it.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

struct Fault {
    part: String,
    kind: String,
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
            Some(Fault { part: part.to_owned(), kind: kind.to_owned(), file: file.into(), done: Mutex::new(false) })
        };
        let poison = text.split(',').any(|t| t == "store:panic").then(Mutex::default);
        Faults { all: text.split(',').filter_map(one).collect(), poison }
    })
}

/// The faults of a part that are asked for now.
fn asked(part: &str) -> impl Iterator<Item = &'static Fault> {
    faults().all.iter().filter(move |f| f.part == part && f.file.exists())
}

/// Panics, or never comes back, if that is asked for. The panic is told with the place that this is called from.
#[track_caller]
#[allow(clippy::panic)] // what this is for
pub(crate) fn point(part: &str) {
    for fault in asked(part) {
        if std::mem::replace(&mut *fault.done.lock().unwrap_or_else(PoisonError::into_inner), true) {
            continue;
        }
        if fault.kind == "loop" {
            loop {
                std::hint::spin_loop();
            }
        }
        panic!("a fault was asked for");
    }
}

/// Whether the part is to refuse what it is asked for.
pub(crate) fn refuses(part: &str) -> bool {
    asked(part).any(|f| f.kind == "refuse")
}

#[allow(clippy::panic)] // what this is for
pub(crate) fn at_stored(id: &str) {
    let Some(poison) = &faults().poison else { return };
    let is_it = {
        let mut poison = poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.get_or_insert_with(|| id.to_owned()) == id
    };
    assert!(!is_it, "a call was asked to be poison");
}
