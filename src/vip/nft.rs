//! Running nftables scripts: one script is one transaction, so either all of it is in force or none.

pub mod signed;
pub mod watch;

use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A run that takes longer than this hangs: 20,000 map elements load in a quarter of a second.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of what nft says goes into an error: it repeats the whole script line, which may hold thousands of elements.
const SAID: usize = 600;
/// Longest name of an instance that is taken over as it is; nftables allows 255 bytes with our prefix.
const LONGEST: usize = 128;

/// Why nftables did not take a script.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("cannot run `nft`: {0}; install the package nftables")]
    Missing(#[source] std::io::Error),
    /// The kernel refused for want of a capability.
    #[error("nftables refused {what}: no privilege; the agent needs CAP_NET_ADMIN")]
    Privilege {
        /// What was to be changed.
        what: String,
    },
    /// nft said no.
    #[error("nftables refused {what}: {said}")]
    Refused {
        /// What was to be changed.
        what: String,
        /// nft's own words, shortened.
        said: String,
    },
    /// nft did not end in time.
    #[error("nft did not finish {what} within {} s", LIMIT.as_secs())]
    Hung {
        /// What was to be changed.
        what: String,
    },
    /// What nft listed is not the JSON that it is documented to be.
    #[error("nft's list of {what} is not understood ({source}); is `nft` of this kernel's release?")]
    Unreadable {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It could not be looked for.
    #[error("cannot look for {what} in nftables: {source}")]
    Unseen {
        /// What was looked for.
        what: String,
        /// What the kernel said.
        source: super::nfnl::NfnlError,
    },
    /// The elements could not be put in.
    #[error("nftables did not take the elements of {what}: {source}")]
    Netlink {
        /// What was to be changed.
        what: String,
        /// What the kernel said.
        source: super::nfnl::NfnlError,
    },
    /// Reading or writing the pipe to nft failed.
    #[error("lost the pipe to nft during {what}: {source}")]
    Pipe {
        /// What was to be changed.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Runs `script` as one transaction. `what` names the change in errors ("the fence of instance x").
///
/// # Errors
/// As in [`NftError`]; then nothing of the script is in force (except, perhaps, after [`NftError::Hung`]).
pub async fn run(what: &str, script: &str) -> Result<(), NftError> {
    talk(what, &["-f", "-"], script).await.map(drop)
}

/// What `nft -j` answers to `arguments`.
///
/// # Errors
/// As in [`NftError`]. An answer that is not understood is never taken for an empty one: our own tables would seem to be gone.
pub async fn ask(what: &str, arguments: &[&str]) -> Result<serde_json::Value, NftError> {
    let mut all = vec!["-j"];
    all.extend(arguments);
    let listed = talk(what, &all, "").await?;
    serde_json::from_slice(&listed).map_err(|source| NftError::Unreadable { what: what.to_owned(), source })
}

async fn talk(what: &str, arguments: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
    let mut child = Command::new("nft")
        .args(arguments)
        // Errors are matched and shown in one language.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Missing)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut pipe) = stdin {
            // nft may end before it has read all (a refused first line): its own words tell more than a broken pipe.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = match tokio::time::timeout(LIMIT, both).await {
        Ok(output) => output.map_err(|source| NftError::Pipe { what: what.to_owned(), source })?,
        Err(_) => return Err(NftError::Hung { what: what.to_owned() }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Operation not permitted") {
        return Err(NftError::Privilege { what: what.to_owned() });
    }
    Err(NftError::Refused { what: what.to_owned(), said: said.trim().chars().take(SAID).collect() })
}

/// The name of the table `kind` of an instance. Letters, digits, `-`, `_` and `.` stay; a name with anything else, or a very
/// long one, gets a number derived from the whole of it, so that two instances never share a table.
#[must_use]
pub fn table_name(kind: &str, instance: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if instance.len() <= LONGEST && !instance.is_empty() && instance.chars().all(fits) {
        return format!("keepcall-{kind}-{instance}");
    }
    // FNV-1a, 64 bits: a stable number is wanted (the table must be found again after a restart), not a secret.
    let hash =
        instance.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let clean: String = instance.chars().take(LONGEST).map(|c| if fits(c) { c } else { '_' }).collect();
    format!("keepcall-{kind}-{clean}/{hash:016x}")
}

/// The start of a script that leaves no table `name`, whether there was one or not, without an error: adding an existing table
/// is a no-op, deleting a missing one is not.
#[must_use]
pub fn without(name: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\n")
}

#[cfg(test)]
mod tests;
