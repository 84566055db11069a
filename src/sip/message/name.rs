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

        impl Name {
            /// The header with this name, in any case, long or compact.
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                /// The longest name in the table is shorter than this.
                const LONGEST: usize = 24;
                let mut lower = [0u8; LONGEST];
                let Some(lower) = lower.get_mut(..name.len()) else { return Self::Other };
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                match &*lower {
                    $($long $(| $compact)? => Self::$variant,)+
                    _ => Self::Other,
                }
            }
        }
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
    MaxForwards = b"max-forwards",
    ContentLength = b"content-length" | b"l",
    ContentType = b"content-type" | b"c",
    ContentEncoding = b"content-encoding" | b"e",
    ContentDisposition = b"content-disposition",
    Allow = b"allow",
    Supported = b"supported" | b"k",
    Require = b"require",
    Unsupported = b"unsupported",
    SessionExpires = b"session-expires" | b"x",
    MinSe = b"min-se",
    RSeq = b"rseq",
    RAck = b"rack",
    SessionId = b"session-id",
    Reason = b"reason",
    RetryAfter = b"retry-after",
    Replaces = b"replaces",
    ReferTo = b"refer-to" | b"r",
    ReferredBy = b"referred-by" | b"b",
    Event = b"event" | b"o",
    Subject = b"subject" | b"s",
    PAssertedIdentity = b"p-asserted-identity",
    RemotePartyId = b"remote-party-id",
    WwwAuthenticate = b"www-authenticate",
    ProxyAuthenticate = b"proxy-authenticate",
    Authorization = b"authorization",
    ProxyAuthorization = b"proxy-authorization",
    UserAgent = b"user-agent",
    Server = b"server",
    Expires = b"expires",
    Warning = b"warning",
}
