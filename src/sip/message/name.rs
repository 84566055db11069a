//! The names of methods and headers that the rest of the program asks for.

/// A request method. Names are case-sensitive (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the method of that name")]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Register,
    Prack,
    Update,
    Info,
    Refer,
    Notify,
    Subscribe,
    Message,
    Publish,
    Other,
}

impl Method {
    /// The method with this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"PRACK" => Self::Prack,
            b"UPDATE" => Self::Update,
            b"INFO" => Self::Info,
            b"REFER" => Self::Refer,
            b"NOTIFY" => Self::Notify,
            b"SUBSCRIBE" => Self::Subscribe,
            b"MESSAGE" => Self::Message,
            b"PUBLISH" => Self::Publish,
            _ => Self::Other,
        }
    }
}

macro_rules! names {
    ($($variant:ident = $long:literal $(| $compact:literal)?,)+) => {
        /// A header that the program knows by name; compact forms (RFC 3261 section 7.3.3 and later) are the same header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each variant is the header of that name")]
        pub enum Name { $($variant,)+ Other }

        /// Every spelling, in lower case.
        const KNOWN: &[(&[u8], Name)] = &[$(($long, Name::$variant), $(($compact, Name::$variant),)?)+];
    };
}

names! {
    CallId = b"call-id" | b"i",
    From = b"from" | b"f",
    To = b"to" | b"t",
    CSeq = b"cseq",
    Via = b"via" | b"v",
    Contact = b"contact" | b"m",
    RecordRoute = b"record-route",
    Route = b"route",
    Path = b"path",
    MaxForwards = b"max-forwards",
    ContentLength = b"content-length" | b"l",
    ContentType = b"content-type" | b"c",
    ContentEncoding = b"content-encoding" | b"e",
    ContentDisposition = b"content-disposition",
    Allow = b"allow",
    AllowEvents = b"allow-events" | b"u",
    Supported = b"supported" | b"k",
    Require = b"require",
    ProxyRequire = b"proxy-require",
    Unsupported = b"unsupported",
    SessionExpires = b"session-expires" | b"x",
    MinSe = b"min-se",
    RSeq = b"rseq",
    RAck = b"rack",
    SessionId = b"session-id",
    Reason = b"reason",
    RetryAfter = b"retry-after",
    Replaces = b"replaces",
    Join = b"join",
    TargetDialog = b"target-dialog",
    ReferTo = b"refer-to" | b"r",
    ReferSub = b"refer-sub",
    ReferredBy = b"referred-by" | b"b",
    Event = b"event" | b"o",
    SubscriptionState = b"subscription-state",
    Subject = b"subject" | b"s",
    Diversion = b"diversion",
    HistoryInfo = b"history-info",
    PAssertedIdentity = b"p-asserted-identity",
    PPreferredIdentity = b"p-preferred-identity",
    RemotePartyId = b"remote-party-id",
    Privacy = b"privacy",
    Identity = b"identity" | b"y",
    IdentityInfo = b"identity-info" | b"n",
    AcceptContact = b"accept-contact" | b"a",
    RejectContact = b"reject-contact" | b"j",
    RequestDisposition = b"request-disposition" | b"d",
    WwwAuthenticate = b"www-authenticate",
    ProxyAuthenticate = b"proxy-authenticate",
    Authorization = b"authorization",
    ProxyAuthorization = b"proxy-authorization",
    UserAgent = b"user-agent",
    Server = b"server",
    Expires = b"expires",
    Warning = b"warning",
}

/// Places of the hash table below; a power of two, several times the number of spellings, so that most lookups compare once.
const PLACES: usize = 256;
/// A place that is not taken.
const FREE: u8 = u8::MAX;
// A full table would make a lookup run in circles; the index of a spelling has to differ from FREE.
const _: () = assert!(KNOWN.len() < PLACES / 2 && KNOWN.len() < FREE as usize);

/// Where each spelling is looked for first: by its length and three of its letters in any case.
const fn place(name: &[u8]) -> usize {
    let n = name.len();
    // Setting bit 5 makes letters lower case. It confuses some other bytes, which the comparison tells apart.
    let (first, middle, last) = (name[0] | 0x20, name[n / 2] | 0x20, name[n - 1] | 0x20);
    n.wrapping_mul(37).wrapping_add(first as usize * 5).wrapping_add(middle as usize * 11).wrapping_add(last as usize * 3)
        % PLACES
}

/// Indices into [`KNOWN`], by open addressing.
static TABLE: [u8; PLACES] = {
    let mut table = [FREE; PLACES];
    let mut i = 0;
    while i < KNOWN.len() {
        let mut at = place(KNOWN[i].0);
        while table[at] != FREE {
            at = (at + 1) % PLACES;
        }
        #[allow(clippy::cast_possible_truncation, reason = "the assertion above keeps the number of spellings below 255")]
        {
            table[at] = i as u8;
        }
        i += 1;
    }
    table
};

impl Name {
    /// How many names there are, [`Name::Other`] included.
    pub(super) const COUNT: usize = Self::Other as usize + 1;

    /// The header with this name, in any case, long or compact.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::Other;
        }
        let mut at = place(name);
        loop {
            let Some((spelling, known)) = KNOWN.get(usize::from(TABLE[at])) else { return Self::Other };
            if spelling.eq_ignore_ascii_case(name) {
                return *known;
            }
            at = (at + 1) % PLACES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_found_in_any_case() {
        for (spelling, name) in KNOWN {
            assert_eq!(*spelling, spelling.to_ascii_lowercase(), "the table is in lower case");
            assert_eq!(Name::of(spelling), *name);
            assert_eq!(Name::of(&spelling.to_ascii_uppercase()), *name);
            assert_eq!(Name::of(&[spelling, &b"x"[..]].concat()), Name::Other);
        }
        for other in [&b""[..], b"z", b"x-pair", b"\xff", b"call_id", b"\0"] {
            assert_eq!(Name::of(other), Name::Other);
        }
    }
}
