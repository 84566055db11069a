//! What is unknown about a leg, in words for people.

use serde::{Deserialize, Serialize};

/// A fact that recovery of a leg needs and that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// A tag. Without both tags no request matches the dialog.
    Tag,
    /// The server's own CSeq. The phone refuses a request with a lower one (RFC 3261 section 12.2.2).
    LocalCseq,
    /// The phone's Contact.
    RemoteTarget,
    /// The route set.
    RouteSet,
    /// The session descriptions in force.
    Description,
    /// The other leg. A lack of room kept other legs unlearnt while this one was learnt.
    Partner,
    /// A gap that this version has no name for.
    #[serde(other)]
    Other,
}

impl Gap {
    const ALL: [Self; 7] =
        [Self::Tag, Self::LocalCseq, Self::RemoteTarget, Self::RouteSet, Self::Description, Self::Partner, Self::Other];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Why the leg can't be recovered, as the end of a sentence about it.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Tag => "keepcall never saw one of the dialog's tags",
            Self::LocalCseq => "keepcall never saw a CSeq of the server in the dialog",
            Self::RemoteTarget => "keepcall never saw the remote target (the phone's Contact)",
            Self::RouteSet => "keepcall never saw the route set, or the route set is too long to keep",
            Self::Description => {
                "keepcall never saw both the offer and the answer in force, or cannot read one of them"
            }
            Self::Partner => {
                "keepcall had no room for more legs then, so the other leg may be one that keepcall does not know"
            }
            Self::Other => "keepcall first saw the dialog after its start",
        }
    }
}

/// A set of [`Gap`]s. A list of words in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Gap>", into = "Vec<Gap>")]
pub struct Gaps(u8);

impl Gaps {
    /// Everything that the start of a dialog would have shown, except the tags.
    pub const UNMET: Self =
        Self(Gap::LocalCseq.bit() | Gap::RemoteTarget.bit() | Gap::RouteSet.bit() | Gap::Description.bit());

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether `gap` is missing.
    #[must_use]
    pub const fn contains(self, gap: Gap) -> bool {
        self.0 & gap.bit() != 0
    }

    /// The set plus `gap`.
    #[must_use]
    pub const fn with(self, gap: Gap) -> Self {
        Self(self.0 | gap.bit())
    }

    /// The set minus `gap`.
    #[must_use]
    pub const fn without(self, gap: Gap) -> Self {
        Self(self.0 & !gap.bit())
    }

    /// The missing facts.
    pub fn iter(self) -> impl Iterator<Item = Gap> {
        Gap::ALL.into_iter().filter(move |g| self.contains(*g))
    }
}

impl From<Vec<Gap>> for Gaps {
    fn from(list: Vec<Gap>) -> Self {
        list.into_iter().fold(Self::default(), Self::with)
    }
}

impl From<Gaps> for Vec<Gap> {
    fn from(gaps: Gaps) -> Self {
        gaps.iter().collect()
    }
}

#[cfg(test)]
mod tests;
