//! Names of the methods and headers in use.

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
        /// A known header name. Compact forms (RFC 3261 section 7.3.3 and later) are the same header.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each variant is the header of that name")]
        pub enum Name { $($variant,)+ Other }

        /// Every spelling, long names in their usual case.
        const KNOWN: &[(&[u8], Name)] = &[$(($long, Name::$variant), $(($compact, Name::$variant),)?)+];
    };
}

names! {
    CallId = b"Call-ID" | b"i",
    From = b"From" | b"f",
    To = b"To" | b"t",
    CSeq = b"CSeq",
    Via = b"Via" | b"v",
    Contact = b"Contact" | b"m",
    RecordRoute = b"Record-Route",
    Route = b"Route",
    Path = b"Path",
    MaxForwards = b"Max-Forwards",
    ContentLength = b"Content-Length" | b"l",
    ContentType = b"Content-Type" | b"c",
    ContentEncoding = b"Content-Encoding" | b"e",
    ContentDisposition = b"Content-Disposition",
    Allow = b"Allow",
    AllowEvents = b"Allow-Events" | b"u",
    Supported = b"Supported" | b"k",
    Require = b"Require",
    ProxyRequire = b"Proxy-Require",
    Unsupported = b"Unsupported",
    SessionExpires = b"Session-Expires" | b"x",
    MinSe = b"Min-SE",
    RSeq = b"RSeq",
    RAck = b"RAck",
    SessionId = b"Session-ID",
    Reason = b"Reason",
    RetryAfter = b"Retry-After",
    Replaces = b"Replaces",
    Join = b"Join",
    TargetDialog = b"Target-Dialog",
    ReferTo = b"Refer-To" | b"r",
    ReferSub = b"Refer-Sub",
    ReferredBy = b"Referred-By" | b"b",
    Event = b"Event" | b"o",
    SubscriptionState = b"Subscription-State",
    Subject = b"Subject" | b"s",
    Diversion = b"Diversion",
    HistoryInfo = b"History-Info",
    PAssertedIdentity = b"P-Asserted-Identity",
    PPreferredIdentity = b"P-Preferred-Identity",
    RemotePartyId = b"Remote-Party-ID",
    Privacy = b"Privacy",
    Identity = b"Identity" | b"y",
    IdentityInfo = b"Identity-Info" | b"n",
    AcceptContact = b"Accept-Contact" | b"a",
    RejectContact = b"Reject-Contact" | b"j",
    RequestDisposition = b"Request-Disposition" | b"d",
    WwwAuthenticate = b"WWW-Authenticate",
    ProxyAuthenticate = b"Proxy-Authenticate",
    Authorization = b"Authorization",
    ProxyAuthorization = b"Proxy-Authorization",
    UserAgent = b"User-Agent",
    Server = b"Server",
    Expires = b"Expires",
    Warning = b"Warning",
}

/// Slots of the hash table below. A power of two, several times the number of spellings, so most lookups compare once.
const PLACES: usize = 256;
/// An empty slot.
const FREE: u8 = u8::MAX;
// A full table would make a lookup loop forever, and the index of a spelling must differ from FREE.
const _: () = assert!(KNOWN.len() < PLACES / 2 && KNOWN.len() < FREE as usize);

/// First slot of a name, from its length and three of its letters in any case.
const fn place(name: &[u8]) -> usize {
    let n = name.len();
    // Setting bit 5 makes letters lower case. It maps some other bytes to the same slot, and the comparison separates
    // them.
    let (first, middle, last) = (name[0] | 0x20, name[n / 2] | 0x20, name[n - 1] | 0x20);
    n.wrapping_mul(37)
        .wrapping_add(first as usize * 5)
        .wrapping_add(middle as usize * 11)
        .wrapping_add(last as usize * 3)
        % PLACES
}

/// Indices into [`KNOWN`], with open addressing.
static TABLE: [u8; PLACES] = {
    let mut table = [FREE; PLACES];
    let mut i = 0;
    while i < KNOWN.len() {
        let mut at = place(KNOWN[i].0);
        while table[at] != FREE {
            at = (at + 1) % PLACES;
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the assertion above keeps the number of spellings below 255"
        )]
        {
            table[at] = i as u8;
        }
        i += 1;
    }
    table
};

impl Name {
    /// Number of names, [`Name::Other`] included.
    pub(super) const COUNT: usize = Self::Other as usize + 1;

    /// The header with this name, long or compact, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::Other;
        }
        let mut at = place(name);
        loop {
            let Some((spelling, known)) = KNOWN.get(usize::from(TABLE[at])) else { return Self::Other };
            // Nearly all senders use the usual spelling, and an exact comparison is much faster.
            if *spelling == name || spelling.eq_ignore_ascii_case(name) {
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
            assert_eq!(Name::of(spelling), *name);
            assert_eq!(Name::of(&spelling.to_ascii_lowercase()), *name);
            assert_eq!(Name::of(&spelling.to_ascii_uppercase()), *name);
            assert_eq!(Name::of(&[spelling, &b"x"[..]].concat()), Name::Other);
        }
        for other in [&b""[..], b"z", b"x-pair", b"\xff", b"call_id", b"\0"] {
            assert_eq!(Name::of(other), Name::Other);
        }
    }
}
