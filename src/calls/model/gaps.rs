//! What is not known of a leg, in words that people can read.

use serde::{Deserialize, Serialize};

/// Something that has to be known for a leg to be recovered, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// A tag: without both no request belongs to the dialog.
    Tag,
    /// The server's own CSeq: a request with a lower one is refused (RFC 3261 section 12.2.2).
    LocalCseq,
    /// The phone's Contact.
    RemoteTarget,
    /// The route set.
    RouteSet,
    /// The session descriptions that are in force.
    Description,
    /// The leg that it is connected to: others were not learnt while this one was, for want of room.
    Partner,
    /// Something that this version has no name for.
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
            Self::Tag => "one of its tags was not seen",
            Self::LocalCseq => "the server's CSeq in it was not seen",
            Self::RemoteTarget => "the phone's Contact was not seen",
            Self::RouteSet => "its route set was not seen, or is longer than any that is learnt",
            Self::Description => "the session descriptions in force were not both seen, or can't be read",
            Self::Partner => {
                "it was learnt while there was no room for others, so its other leg may be one that is not known"
            }
            Self::Other => "it was first seen after its start",
        }
    }
}

/// A set of [`Gap`]s; a list of words in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Gap>", into = "Vec<Gap>")]
pub struct Gaps(u8);

impl Gaps {
    /// Everything that a dialog's start would have told, its tags apart.
    pub const UNMET: Self =
        Self(Gap::LocalCseq.bit() | Gap::RemoteTarget.bit() | Gap::RouteSet.bit() | Gap::Description.bit());

    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether this is missing.
    #[must_use]
    pub const fn contains(self, gap: Gap) -> bool {
        self.0 & gap.bit() != 0
    }

    /// The set with this one as well.
    #[must_use]
    pub const fn with(self, gap: Gap) -> Self {
        Self(self.0 | gap.bit())
    }

    /// The set without this one.
    #[must_use]
    pub const fn without(self, gap: Gap) -> Self {
        Self(self.0 & !gap.bit())
    }

    /// What is missing.
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
