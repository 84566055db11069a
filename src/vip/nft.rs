//! Runs nftables scripts. One script is one transaction, so either all of it takes effect or none.

pub mod signed;
pub mod watch;

use crate::fnv::fnv1a;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A longer run counts as hung: 20,000 map elements load in a quarter of a second.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of nft's error text goes into an error: nft repeats the whole script line, which may hold thousands of
/// elements.
const SAID: usize = 600;
/// Longest instance name that goes into a table name unchanged; nftables allows 255 bytes including our prefix.
const LONGEST: usize = 128;

/// Why nftables did not take a script.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program `nft` is missing.
    #[error("cannot run `nft`: {0}; install the package `nftables`")]
    Missing(#[source] std::io::Error),
    /// The kernel refused because a capability is missing.
    #[error("nftables refused {what}: permission denied; give the agent CAP_NET_ADMIN")]
    Privilege {
        /// The attempted change.
        what: String,
    },
    /// nft refused the script.
    #[error("nftables refused {what}: {said}")]
    Refused {
        /// The attempted change.
        what: String,
        /// nft's own error text, shortened.
        said: String,
    },
    /// nft timed out.
    #[error("`nft` did not finish {what} within {} s", LIMIT.as_secs())]
    Hung {
        /// The attempted change.
        what: String,
    },
    /// nft's list is not the documented JSON.
    #[error(
        "cannot parse the output of `nft` for {what} ({source}); check that `nft` and the kernel are of the same \
         release"
    )]
    Unreadable {
        /// The requested list.
        what: String,
        /// The parse error.
        source: serde_json::Error,
    },
    /// The lookup failed.
    #[error("cannot find {what} in nftables: {source}")]
    Unseen {
        /// The object of the lookup.
        what: String,
        /// The kernel's error.
        source: super::nfnl::NfnlError,
    },
    /// The kernel refused the elements.
    #[error("nftables refused the elements of {what}: {source}")]
    Netlink {
        /// The attempted change.
        what: String,
        /// The kernel's error.
        source: super::nfnl::NfnlError,
    },
    /// Reading or writing the pipe to nft failed.
    #[error("lost the pipe to `nft` during {what}: {source}")]
    Pipe {
        /// The attempted change.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Runs `script` as one transaction. `what` names the change in errors ("the fence of instance x").
///
/// # Errors
/// As in [`NftError`]. After an error nothing of the script is in force (except, perhaps, after [`NftError::Hung`]).
pub async fn run(what: &str, script: &str) -> Result<(), NftError> {
    talk(what, &["-f", "-"], script).await.map(drop)
}

/// The answer of `nft -j` to `arguments`.
///
/// # Errors
/// As in [`NftError`]. An unreadable answer never counts as an empty one, because our own tables would seem to be gone.
pub async fn ask(what: &str, arguments: &[&str]) -> Result<serde_json::Value, NftError> {
    let mut all = vec!["-j"];
    all.extend(arguments);
    let listed = talk(what, &all, "").await?;
    serde_json::from_slice(&listed).map_err(|source| NftError::Unreadable { what: what.to_owned(), source })
}

async fn talk(what: &str, arguments: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
    let mut child = Command::new("nft")
        .args(arguments)
        // One fixed language, because the code matches error texts and shows them.
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
            // nft may exit before it has read everything (after a refused first line). Its own error text says more
            // than a broken pipe.
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

/// The name of the table `kind` of an instance. Letters, digits, `-`, `_` and `.` stay. A name with other characters,
/// or a very long one, gets a hash of the whole name, so that two instances never share a table.
#[must_use]
pub fn table_name(kind: &str, instance: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if instance.len() <= LONGEST && !instance.is_empty() && instance.chars().all(fits) {
        return format!("keepcall-{kind}-{instance}");
    }
    // The agent must find the table after a restart, and after an upgrade.
    let hash = fnv1a(instance.as_bytes());
    let clean: String = instance.chars().take(LONGEST).map(|c| if fits(c) { c } else { '_' }).collect();
    format!("keepcall-{kind}-{clean}/{hash:016x}")
}

/// The start of a script that deletes table `name` without an error, whether it exists or not. Adding an existing table
/// is a no-op; deleting a missing table is an error.
#[must_use]
pub fn without(name: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\n")
}

#[cfg(test)]
mod tests;
