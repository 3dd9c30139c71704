/// The headers that a proxy looks at. All others are [`HeaderName::Other`] and are never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderName {
    /// Via, `v`.
    Via,
    /// Route.
    Route,
    /// Record-Route.
    RecordRoute,
    /// From, `f`.
    From,
    /// To, `t`.
    To,
    /// Call-ID, `i`.
    CallId,
    /// CSeq.
    CSeq,
    /// Max-Forwards.
    MaxForwards,
    /// Content-Length, `l`.
    ContentLength,
    /// Proxy-Require.
    ProxyRequire,
    /// Max-Breadth (RFC 5393).
    MaxBreadth,
    /// P-Asserted-Identity (RFC 3325).
    PAssertedIdentity,
    /// P-Preferred-Identity (RFC 3325).
    PPreferredIdentity,
    /// Privacy (RFC 3323).
    Privacy,
    /// Retry-After.
    RetryAfter,
    /// Require.
    Require,
    /// Reason (RFC 3326).
    Reason,
    /// Timestamp.
    Timestamp,
    /// User-Agent.
    UserAgent,
    /// Authorization.
    Authorization,
    /// WWW-Authenticate.
    WwwAuthenticate,
    /// Proxy-Authenticate.
    ProxyAuthenticate,
    /// One of the `X-` headers by which an edge and its PBX tell each other what a call is: X-Store-Domain, X-Inbound-Trunk,
    /// X-Outbound-Call, X-Internal-Call, X-Park-Call, X-Original-DID, X-Route-To-Trunk; and X-Sipedge-Flow, between the edge and its
    /// answerer. Nobody else may set them.
    Internal,
    /// Anything else.
    Other,
}

impl HeaderName {
    /// The header of this name, in any case, long or compact (RFC 3261 §7.3.1, §7.3.3).
    pub fn of(name: &[u8]) -> Self {
        let long: (&[u8], Self) = match (name.len(), name.first().map(u8::to_ascii_lowercase)) {
            (1, Some(b'v')) => return Self::Via,
            (1, Some(b'f')) => return Self::From,
            (1, Some(b't')) => return Self::To,
            (1, Some(b'i')) => return Self::CallId,
            (1, Some(b'l')) => return Self::ContentLength,
            (2, Some(b't')) => (b"to", Self::To),
            (3, Some(b'v')) => (b"via", Self::Via),
            (4, Some(b'f')) => (b"from", Self::From),
            (4, Some(b'c')) => (b"cseq", Self::CSeq),
            (5, Some(b'r')) => (b"route", Self::Route),
            (6, Some(b'r')) => (b"reason", Self::Reason),
            (7, Some(b'c')) => (b"call-id", Self::CallId),
            (7, Some(b'r')) => (b"require", Self::Require),
            (7, Some(b'p')) => (b"privacy", Self::Privacy),
            (9, Some(b't')) => (b"timestamp", Self::Timestamp),
            (10, Some(b'u')) => (b"user-agent", Self::UserAgent),
            (11, Some(b'm')) => (b"max-breadth", Self::MaxBreadth),
            (11, Some(b'r')) => (b"retry-after", Self::RetryAfter),
            (12, Some(b'm')) => (b"max-forwards", Self::MaxForwards),
            (12, Some(b'r')) => (b"record-route", Self::RecordRoute),
            (13, Some(b'a')) => (b"authorization", Self::Authorization),
            (13, Some(b'p')) => (b"proxy-require", Self::ProxyRequire),
            (14, Some(b'c')) => (b"content-length", Self::ContentLength),
            (16, Some(b'w')) => (b"www-authenticate", Self::WwwAuthenticate),
            (18, Some(b'p')) => (b"proxy-authenticate", Self::ProxyAuthenticate),
            (19, Some(b'p')) => (b"p-asserted-identity", Self::PAssertedIdentity),
            (20, Some(b'p')) => (b"p-preferred-identity", Self::PPreferredIdentity),
            (11..=16, Some(b'x')) if is_internal(name) => return Self::Internal,
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(long.0) { long.1 } else { Self::Other }
    }
}

fn is_internal(name: &[u8]) -> bool {
    INTERNAL.iter().any(|internal| name.eq_ignore_ascii_case(internal))
}

const INTERNAL: [&[u8]; 8] = [
    b"X-Store-Domain",
    b"X-Inbound-Trunk",
    b"X-Outbound-Call",
    b"X-Internal-Call",
    b"X-Park-Call",
    b"X-Original-DID",
    b"X-Route-To-Trunk",
    b"X-Sipedge-Flow",
];
