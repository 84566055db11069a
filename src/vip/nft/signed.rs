//! A table of our own that a new process recognizes. Each rule carries a number as its comment: a digest of the table's
//! text. The new process leaves matching rules alone. A run of nft would hold the kernel's nftables lock for an RCU
//! grace period, and the kernel lease waits for that lock.
//!
//! The rules carry the number because the kernel keeps the first comment of a table or chain, even after a flush of all
//! rules.

use crate::vip::nfnl::Rule;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Digest bytes in the number. The number distinguishes versions and configurations; it is no protection against
/// forgery.
const BYTES: usize = 8;

/// A table's script, signature and rule counts.
#[derive(Debug)]
pub struct Signed {
    text: String,
    signature: String,
    // Number of rules per chain.
    rules: BTreeMap<String, usize>,
}

impl Signed {
    /// Signs the rules of `body`, which has one line for each rule, for the start of each chain and for its end.
    #[must_use]
    pub fn new(body: &str) -> Self {
        let digest = Sha256::digest(body);
        let signature: String = digest.iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect();
        let (mut text, mut rules) = (String::new(), BTreeMap::new());
        let mut chain: Option<&str> = None;
        for line in body.lines() {
            text.push_str(line);
            match (chain, line.strip_prefix("chain ")) {
                (_, Some(rest)) => chain = rest.split_whitespace().next(),
                (Some(_), None) if line == "}" => chain = None,
                (Some(name), None) => {
                    *rules.entry(name.to_owned()).or_default() += 1;
                    text.push_str(" comment \"");
                    text.push_str(&signature);
                    text.push('"');
                }
                (None, None) => {}
            }
            text.push('\n');
        }
        Self { text, signature, rules }
    }

    /// The script for nft.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `there`, all rules of the table, match exactly: no rule is missing, altered or foreign.
    #[must_use]
    pub fn is_in_force(&self, there: &[Rule]) -> bool {
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        for rule in there {
            *count.entry(&rule.chain).or_default() += 1;
        }
        there.iter().all(|rule| rule.comment == self.signature)
            && count.into_iter().eq(self.rules.iter().map(|(chain, rules)| (chain.as_str(), *rules)))
    }
}

#[cfg(test)]
mod tests;
