//! A table of our own that a new process recognizes: each of its rules bears, as its comment, a number made of the text that it
//! comes from. Then rules that are as they should be are left alone. To run nft for them would hold the kernel's lock on nftables
//! until every processor has passed a point of rest, and the kernel lease waits for that lock.
//!
//! Why on rules: the kernel keeps the comment of a table or chain as it was at first, and also when all rules are flushed.

use crate::vip::nfnl::Rule;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Bytes of the digest that make the number. It tells versions and configurations apart, and keeps nobody out.
const BYTES: usize = 8;

/// What a table is made of.
#[derive(Debug)]
pub struct Signed {
    text: String,
    signature: String,
    // How many each chain has.
    rules: BTreeMap<String, usize>,
}

impl Signed {
    /// Signs the rules of `body`, which has a line for each rule, for the begin of each chain and for its end.
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

    /// What nft makes the table of.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `there`, all rules of the table, are these: none is missing, none is of another text, and none is a stranger's.
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
