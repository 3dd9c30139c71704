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
        let same = |known: &&(&[u8], Self)| name.eq_ignore_ascii_case(known.0);
        COMPACT.iter().chain(SHORT).chain(LONG).find(same).map_or(Self::Other, |known| known.1)
    }

    /// The bit that stands for this name in a set of names.
    #[inline]
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What the first letters of a line say about its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// It is this one, and has so many letters; its colon follows.
    Known(HeaderName, usize),
    /// It is none of the known ones, however it goes on.
    Other,
    /// It may be one.
    Unsure,
}

impl Name {
    /// The name that `line` begins with, found by comparing eight letters at a time: nearly all lines are decided by the first eight.
    #[inline]
    pub(super) fn begins(line: &[u8]) -> Self {
        let Some(eight) = line.first_chunk::<8>() else { return Self::Unsure };
        let eight = small(u64::from_le_bytes(*eight));
        match eight as u8 {
            b'v' => short(line, eight, [(b"v", HeaderName::Via), (b"via", HeaderName::Via)]),
            b'f' => short(line, eight, [(b"f", HeaderName::From), (b"from", HeaderName::From)]),
            b't' if eight == TIMESTAMP => long(line, b"timestamp", HeaderName::Timestamp),
            b't' => short(line, eight, [(b"to", HeaderName::To), (b"t", HeaderName::To)]),
            b'i' => short(line, eight, [(b"i", HeaderName::CallId)]),
            b'l' => short(line, eight, [(b"l", HeaderName::ContentLength)]),
            b'c' if eight == CONTENT => match line.get(8) {
                Some(b'l' | b'L') => long(line, b"content-length", HeaderName::ContentLength),
                _ => Self::Other,
            },
            b'c' => short(line, eight, [(b"cseq", HeaderName::CSeq), (b"call-id", HeaderName::CallId)]),
            b'r' if eight == RECORD => long(line, b"record-route", HeaderName::RecordRoute),
            b'r' if eight == RETRY => long(line, b"retry-after", HeaderName::RetryAfter),
            b'r' => {
                let names = [
                    (b"route".as_slice(), HeaderName::Route),
                    (b"reason", HeaderName::Reason),
                    (b"require", HeaderName::Require),
                ];
                short(line, eight, names)
            }
            b'm' if eight == MAX_F => long(line, b"max-forwards", HeaderName::MaxForwards),
            b'm' if eight == MAX_B => long(line, b"max-breadth", HeaderName::MaxBreadth),
            b'p' if eight == ASSERTED => long(line, b"p-asserted-identity", HeaderName::PAssertedIdentity),
            b'p' if eight == PREFERRED || eight == PROXY_R || eight == PROXY_A => Self::Unsure,
            b'p' => short(line, eight, [(b"privacy", HeaderName::Privacy)]),
            b'u' if eight == USER => long(line, b"user-agent", HeaderName::UserAgent),
            b'a' if eight == AUTHORIZATION => Self::Unsure,
            b'w' if eight == WWW => Self::Unsure,
            b'x' if eight & 0xff00 == u64::from(b'-') << 8 && INTERNAL.contains(&((eight >> 16) as u8)) => Self::Unsure,
            b'x' => Self::Other,
            // White space before the name: it may be any.
            ..=b' ' => Self::Unsure,
            _ => Self::Other,
        }
    }
}

/// One of some names of at most seven letters.
#[inline(always)]
fn short<const N: usize>(line: &[u8], eight: u64, names: [(&[u8], HeaderName); N]) -> Name {
    for (name, header) in names {
        let bits = 8 * name.len() as u32;
        if (eight ^ first_eight(name)) << (64 - bits) == 0 {
            match line.get(name.len()) {
                Some(b':') => return Name::Known(header, name.len()),
                // White space may stand before the colon.
                Some(..=b' ') => return Name::Unsure,
                _ => {}
            }
        }
    }
    Name::Other
}

/// A name of nine letters and more, of which the first eight are there.
#[inline(always)]
fn long(line: &[u8], name: &[u8], header: HeaderName) -> Name {
    let is_it = match (line.get(8..16).and_then(<[u8]>::first_chunk::<8>), name.get(8..)) {
        (Some(eight), Some(rest)) if rest.len() <= 8 => {
            let bits = 8 * rest.len() as u32;
            (small(u64::from_le_bytes(*eight)) ^ first_eight(rest)).checked_shl(64 - bits) == Some(0)
        }
        _ => line.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)),
    };
    if is_it && line.get(name.len()) == Some(&b':') { Name::Known(header, name.len()) } else { Name::Unsure }
}

/// Eight letters in small ones. What has not the second highest bit, such as the hyphen, stays as it is.
#[inline]
fn small(eight: u64) -> u64 {
    eight | (eight & CAPITALS) >> 1
}

/// The first eight letters of a name, as [`small`] has them; zeros behind a shorter one.
#[inline]
const fn first_eight(name: &[u8]) -> u64 {
    let mut eight = 0;
    let mut at = 0;
    while at < name.len() && at < 8 {
        #[allow(clippy::indexing_slicing, reason = "`at` is below the length")]
        {
            eight |= (name[at] as u64) << (at * 8);
        }
        at += 1;
    }
    eight
}

/// In each byte the second highest bit, which letters have.
const CAPITALS: u64 = u64::from_le_bytes([0x40; 8]);

const COMPACT: &[(&[u8], HeaderName)] = &[
    (b"v", HeaderName::Via),
    (b"f", HeaderName::From),
    (b"t", HeaderName::To),
    (b"i", HeaderName::CallId),
    (b"l", HeaderName::ContentLength),
];
const SHORT: &[(&[u8], HeaderName)] = &[
    (b"to", HeaderName::To),
    (b"via", HeaderName::Via),
    (b"from", HeaderName::From),
    (b"cseq", HeaderName::CSeq),
    (b"route", HeaderName::Route),
    (b"reason", HeaderName::Reason),
    (b"call-id", HeaderName::CallId),
    (b"require", HeaderName::Require),
    (b"privacy", HeaderName::Privacy),
];
const LONG: &[(&[u8], HeaderName)] = &[
    (b"timestamp", HeaderName::Timestamp),
    (b"user-agent", HeaderName::UserAgent),
    (b"max-breadth", HeaderName::MaxBreadth),
    (b"retry-after", HeaderName::RetryAfter),
    (b"max-forwards", HeaderName::MaxForwards),
    (b"record-route", HeaderName::RecordRoute),
    (b"authorization", HeaderName::Authorization),
    (b"proxy-require", HeaderName::ProxyRequire),
    (b"content-length", HeaderName::ContentLength),
    (b"www-authenticate", HeaderName::WwwAuthenticate),
    (b"proxy-authenticate", HeaderName::ProxyAuthenticate),
    (b"p-asserted-identity", HeaderName::PAssertedIdentity),
    (b"p-preferred-identity", HeaderName::PPreferredIdentity),
    (b"x-store-domain", HeaderName::Internal),
    (b"x-inbound-trunk", HeaderName::Internal),
    (b"x-outbound-call", HeaderName::Internal),
    (b"x-internal-call", HeaderName::Internal),
    (b"x-park-call", HeaderName::Internal),
    (b"x-original-did", HeaderName::Internal),
    (b"x-route-to-trunk", HeaderName::Internal),
    (b"x-sipedge-flow", HeaderName::Internal),
];

/// The third letters of the names of [`HeaderName::Internal`].
const INTERNAL: [u8; 5] = *b"siopr";
/// The first letters of the long names.
const TIMESTAMP: u64 = first_eight(b"timestamp");
const CONTENT: u64 = first_eight(b"content-length");
const RECORD: u64 = first_eight(b"record-route");
const RETRY: u64 = first_eight(b"retry-after");
const MAX_F: u64 = first_eight(b"max-forwards");
const MAX_B: u64 = first_eight(b"max-breadth");
const ASSERTED: u64 = first_eight(b"p-asserted-identity");
const PREFERRED: u64 = first_eight(b"p-preferred-identity");
const PROXY_R: u64 = first_eight(b"proxy-require");
const PROXY_A: u64 = first_eight(b"proxy-authenticate");
const USER: u64 = first_eight(b"user-agent");
const AUTHORIZATION: u64 = first_eight(b"authorization");
const WWW: u64 = first_eight(b"www-authenticate");

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first letters say is what the whole name says, whatever follows.
    #[test]
    fn the_first_letters_are_never_wrong() {
        let known = COMPACT.iter().chain(SHORT).chain(LONG);
        let others: [&[u8]; 16] = [
            b"Contact",
            b"Content-Type",
            b"Content-Language",
            b"Supported",
            b"x",
            b"m",
            b"k",
            b"Allow",
            b"Max",
            b"Viaa",
            b"Tos",
            b"Record-Routes",
            b"Proxy-Authorization",
            b"Call\rID",
            b"Content\rLength",
            b"",
        ];
        let names = known.map(|known| known.0).chain(others);
        for name in names {
            for name in [name.to_vec(), name.to_ascii_uppercase(), name.iter().rev().copied().collect()] {
                for between in ["", " ", "\t", " \t", "\r"] {
                    for before in ["", " ", "\r"] {
                        for after in [": value\r\n", ":\r\n\r\n", ":"] {
                            let line = [before.as_bytes(), &name, between.as_bytes(), after.as_bytes()].concat();
                            let found = Name::begins(&line);
                            let expected = HeaderName::of(&name);
                            match found {
                                Name::Known(header, length) => {
                                    assert_eq!((header, length), (expected, name.len()), "{line:?}");
                                    assert_eq!(line.get(length), Some(&b':'));
                                }
                                Name::Other => assert_eq!(expected, HeaderName::Other, "{line:?}"),
                                Name::Unsure => {}
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(Name::begins(b"VIA: SIP/2.0/UDP a"), Name::Known(HeaderName::Via, 3));
        assert_eq!(Name::begins(b"Content-Length: 0\r\n"), Name::Known(HeaderName::ContentLength, 14));
        assert_eq!(Name::begins(b"Supported: timer"), Name::Other);
    }
}
