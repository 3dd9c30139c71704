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
            (7, Some(b'c')) => (b"call-id", Self::CallId),
            (12, Some(b'm')) => (b"max-forwards", Self::MaxForwards),
            (12, Some(b'r')) => (b"record-route", Self::RecordRoute),
            (13, Some(b'p')) => (b"proxy-require", Self::ProxyRequire),
            (14, Some(b'c')) => (b"content-length", Self::ContentLength),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(long.0) { long.1 } else { Self::Other }
    }
}
