//! Fault injection for tests. It needs the cargo feature `faults`, and no release has that feature.
//!
//! `KEEPCALL_FAULT` lists the faults, such as `learning:panic@/tmp/one,control:loop@/tmp/two`. Each fault has a part
//! (`learning`, `recovery`, `control`, `hep`, `ami`, `esl`), a kind (`panic` or `loop`) and a file. The fault fires
//! once, when the file appears. `lease:refuse@/tmp/three` lasts while the file exists: the kernel refuses every hold.
//! `store:panic` poisons the first stored call: the part panics each time it handles that call.

use crate::sync::Locked as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

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

/// The part's faults whose files exist now.
fn asked(part: &str) -> impl Iterator<Item = &'static Fault> {
    faults().all.iter().filter(move |f| f.part == part && f.file.exists())
}

/// Panics or loops for ever if a fault asks for it. The panic message shows the caller's location.
#[track_caller]
#[allow(clippy::panic)] // what this is for
pub(crate) fn point(part: &str) {
    for fault in asked(part) {
        if std::mem::replace(&mut *fault.done.locked(), true) {
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

/// Whether a fault makes the part refuse requests.
pub(crate) fn refuses(part: &str) -> bool {
    asked(part).any(|f| f.kind == "refuse")
}

#[allow(clippy::panic)] // what this is for
pub(crate) fn at_stored(id: &str) {
    let Some(poison) = &faults().poison else { return };
    let is_it = {
        let mut poison = poison.locked();
        poison.get_or_insert_with(|| id.to_owned()) == id
    };
    assert!(!is_it, "a call was asked to be poison");
}
