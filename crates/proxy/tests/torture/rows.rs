//! What a proxy has to do with each message, and why.

use Form::{AsItIs, InCall, InDialog, Invite, InviteWith};
use Outcome::{Answered, Dropped, Forwarded, Refused};

/// One message and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Section of the RFC.
    pub(crate) section: &'static str,
    /// Name in the RFC, and of the file.
    pub(crate) file: &'static str,
    pub(crate) form: Form,
    pub(crate) outcome: Outcome,
    pub(crate) why: &'static str,
}

/// How the message of the file is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// As the RFC has it.
    AsItIs,
    /// As an INVITE: the one method that this edge forwards from outside a dialog, so that forwarding is seen.
    Invite,
    /// As an INVITE, with these replacements.
    InviteWith(&'static [(&'static str, &'static str)]),
    /// Within a call of this edge, where every method is forwarded: Request-URI, From, To, Call-ID and Route are the call's.
    InDialog,
    /// As a response of the called side to an INVITE that it got: Via, Record-Route, From, To, Call-ID and CSeq are that INVITE's. With
    /// these replacements, in which `{caller}` is the caller's address and port.
    InCall(&'static [(&'static str, &'static str)]),
}

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It arrives at the other side, unchanged but for what a proxy must change.
    Forwarded,
    /// The edge answers it, and nobody else sees it.
    Answered(u16),
    /// Nobody hears of it.
    Dropped,
    /// Either 400 or nothing.
    Refused,
}

const fn row(section: &'static str, file: &'static str, form: Form, outcome: Outcome, why: &'static str) -> Row {
    Row { section, file, form, outcome, why }
}

/// A request with a To tag and without a route of ours belongs to no dialog of this edge.
const NO_DIALOG: &str = "a To tag without a route of this edge is no dialog of this edge's";
/// By design of this edge: it stands between trunks, and registers nobody.
const NOT_OUR_METHOD: &str = "this edge takes no such method from outside a dialog, and says which ones it takes";
/// RFC 3261 §11: what concerns the edge itself.
const OWN_OPTIONS: &str = "this edge answers OPTIONS from a trunk itself";
/// RFC 3261 §16.3 step 1.
const NOT_READ: &str = "what is odd or broken is in a part that a proxy does not read, and goes on as it came";
/// RFC 3261 §18.2.1.
const OWN_RECEIVED: &str =
    "`received` in the topmost Via is the receiver's to say: it takes the place of what the sender wrote";
/// RFC 6026 §7.2, RFC 3261 §18.1.2.
const STRAY: &str = "a response whose topmost Via is not the edge's, or that no transaction waits for";

pub(crate) const RFC_4475: &[Row] = &[
    row("3.1.1.1", "wsinv", AsItIs, Answered(404), NO_DIALOG),
    row(
        "3.1.1.1",
        "wsinv",
        InviteWith(&[(";   tag    = 77aa13x", ";   tog    = 77aa13x")]),
        Forwarded,
        "folds, white space, compact names and quotes are read, and stay",
    ),
    row("3.1.1.2", "intmeth", AsItIs, Forwarded, "an unknown method is forwarded like any other"),
    row(
        "3.1.1.2",
        "intmeth",
        Invite,
        Forwarded,
        "every character that the grammar allows passes, a quoted NUL and UTF-8 too",
    ),
    row("3.1.1.2", "intmeth", InDialog, Forwarded, "an unknown method is forwarded like any other"),
    row("3.1.1.3", "esc01", AsItIs, Forwarded, "an escaped `@` or `:` in the user part is part of it"),
    row("3.1.1.4", "escnull", AsItIs, Answered(405), NOT_OUR_METHOD),
    row(
        "3.1.1.4",
        "escnull",
        InviteWith(&[("bob@example.com SIP/2.0", "null-%00-null@example.com SIP/2.0")]),
        Forwarded,
        "an escaped NUL ends nothing",
    ),
    row(
        "3.1.1.5",
        "esc02",
        AsItIs,
        Answered(404),
        "% escapes nothing in a method: this one is unknown, and not REGISTER; its Request-URI has no user part",
    ),
    row("3.1.1.5", "esc02", Invite, Forwarded, "% escapes nothing in a header's name or a quoted string"),
    row("3.1.1.5", "esc02", InDialog, Forwarded, "an unknown method is forwarded like any other"),
    row("3.1.1.6", "lwsdisp", AsItIs, Answered(200), OWN_OPTIONS),
    row("3.1.1.6", "lwsdisp", Invite, Forwarded, "no white space is needed before `<`: the tag behind it is found"),
    row("3.1.1.7", "longreq", AsItIs, Forwarded, "long values, many Vias, and a topmost one without a branch"),
    row(
        "3.1.1.8",
        "dblreq",
        AsItIs,
        Answered(405),
        "Content-Length ends the request; what follows in the datagram is nobody's",
    ),
    row(
        "3.1.1.8",
        "dblreq",
        Invite,
        Forwarded,
        "what follows in the datagram is neither forwarded with the first request nor taken for a second one",
    ),
    row("3.1.1.9", "semiuri", AsItIs, Answered(200), OWN_OPTIONS),
    row("3.1.1.9", "semiuri", Invite, Forwarded, "a semicolon before the `@` belongs to the user part"),
    row("3.1.1.9", "semiuri", InDialog, Forwarded, NOT_READ),
    row("3.1.1.10", "transports", AsItIs, Answered(200), OWN_OPTIONS),
    row(
        "3.1.1.10",
        "transports",
        Invite,
        Forwarded,
        "the other hops' transports, known or not, are not the edge's business",
    ),
    row("3.1.1.10", "transports", InDialog, Forwarded, "the other hops' transports are not the edge's business"),
    row("3.1.1.11", "mpart01", AsItIs, Forwarded, "a body is bytes: every value, line ends and NUL among them"),
    row("3.1.1.11", "mpart01", Invite, Forwarded, "a body is bytes: every value, line ends and NUL among them"),
    row("3.1.1.11", "mpart01", InDialog, Forwarded, "a body is bytes"),
    row("3.1.1.12", "unreason", AsItIs, Dropped, STRAY),
    row("3.1.1.12", "unreason", InCall(&[]), Forwarded, "a reason phrase is any UTF-8 text"),
    row("3.1.1.13", "noreason", AsItIs, Dropped, STRAY),
    row(
        "3.1.1.13",
        "noreason",
        InCall(&[]),
        Dropped,
        "100 is hop by hop (RFC 3261 §16.7 step 5), with a reason or without",
    ),
    row("3.1.1.13", "noreason", InCall(&[("SIP/2.0 100 ", "SIP/2.0 183 ")]), Forwarded, "a reason phrase may be empty"),
    row(
        "3.1.2.1",
        "badinv01",
        AsItIs,
        Answered(400),
        "a proxy acts on Via, and this one's values are empty but for the first",
    ),
    row(
        "3.1.2.1",
        "badinv01",
        InviteWith(&[(";;,;,,", ";branch=z9hG4bKbadinv01"), ("badinv01.0", "badinv01.1")]),
        Forwarded,
        NOT_READ,
    ),
    row("3.1.2.2", "clerr", AsItIs, Answered(400), "the body is not there (RFC 3261 §18.3)"),
    row("3.1.2.3", "ncl", AsItIs, Answered(400), "no message has so little body"),
    row("3.1.2.4", "scalar02", AsItIs, Answered(400), "a CSeq over 2^31 names no transaction (RFC 3261 §8.1.1.5)"),
    row(
        "3.1.2.4",
        "scalar02",
        InviteWith(&[("36893488147419103232", "1"), ("Kscalar02", "Kscalar02mf")]),
        Answered(400),
        "Max-Forwards ends at 255; to take it for absent is allowed, and this edge does not",
    ),
    row(
        "3.1.2.4",
        "scalar02",
        InviteWith(&[
            ("36893488147419103232", "1"),
            ("Max-Forwards: 300", "Max-Forwards: 255"),
            ("Kscalar02", "Kscalar02ex"),
        ]),
        Forwarded,
        NOT_READ,
    ),
    row("3.1.2.5", "scalarlg", AsItIs, Dropped, STRAY),
    row(
        "3.1.2.5",
        "scalarlg",
        InCall(&[("CSeq: 1 INVITE", "CSeq: 9292394834772304023312 INVITE")]),
        Dropped,
        "a CSeq over 2^31 is no request's",
    ),
    row(
        "3.1.2.5",
        "scalarlg",
        InCall(&[("503 Service Unavailable", "480 Temporarily Unavailable")]),
        Forwarded,
        NOT_READ,
    ),
    row("3.1.2.6", "quotbal", AsItIs, Answered(400), "where the To URI begins is anybody's guess"),
    row("3.1.2.7", "ltgtruri", AsItIs, Answered(400), "brackets belong around no Request-URI"),
    row("3.1.2.8", "lwsruri", AsItIs, Answered(400), "white space ends a Request-URI; what follows is no version"),
    row(
        "3.1.2.9",
        "lwsstart",
        AsItIs,
        Refused,
        "it may be refused as malformed; forwarded with its extra white space it must not be",
    ),
    row(
        "3.1.2.10",
        "trws",
        AsItIs,
        Refused,
        "it may be refused as malformed; forwarded with its extra white space it must not be",
    ),
    row("3.1.2.10", "trws", Invite, Refused, "the same, where a request would be forwarded"),
    row(
        "3.1.2.11",
        "escruri",
        AsItIs,
        Forwarded,
        "headers in a Request-URI may be ignored; neither they nor what they would make go on",
    ),
    row("3.1.2.12", "baddate", AsItIs, Forwarded, NOT_READ),
    row("3.1.2.13", "regbadct", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.1.2.13", "regbadct", Invite, Forwarded, NOT_READ),
    row("3.1.2.14", "badaspec", AsItIs, Answered(200), OWN_OPTIONS),
    row("3.1.2.14", "badaspec", Invite, Forwarded, "of From and To a proxy reads the tag, and no spaces hide that"),
    row("3.1.2.15", "baddn", AsItIs, Answered(200), OWN_OPTIONS),
    row("3.1.2.15", "baddn", Invite, Forwarded, "of From and To a proxy reads the tag, and no comma hides that"),
    row("3.1.2.16", "badvers", AsItIs, Answered(505), "another version is answered 505"),
    row("3.1.2.17", "mismatch01", AsItIs, Answered(400), "CSeq names another method (RFC 3261 §8.1.1.5)"),
    row("3.1.2.18", "mismatch02", AsItIs, Answered(400), "CSeq names another method; 400 or 501 are both right"),
    row("3.1.2.19", "bigcode", AsItIs, Dropped, STRAY),
    row("3.1.2.19", "bigcode", InCall(&[]), Dropped, "no code has ten digits: it is no response, and the call goes on"),
    row("3.2.1", "badbranch", AsItIs, Answered(200), OWN_OPTIONS),
    row("3.2.1", "badbranch", InDialog, Forwarded, "the cookie alone names no transaction: RFC 2543's rules hold"),
    row("3.2.1", "badbranch", Invite, Forwarded, "the cookie alone names no transaction: RFC 2543's rules hold"),
    row(
        "3.2.1",
        "badbranch",
        InviteWith(&[("sadonfo23i420jv0as0derf3j3n", "another-call")]),
        Forwarded,
        "another call with the cookie alone is no retransmission of the first",
    ),
    row("3.3.1", "insuf", AsItIs, Answered(400), "Call-ID, From and To are missing"),
    row(
        "3.3.2",
        "unkscm",
        AsItIs,
        Answered(416),
        "such a Request-URI names neither the edge nor anybody it could reach",
    ),
    row("3.3.2", "unkscm", Invite, Answered(416), "the scheme is unknown; what To says routes nothing"),
    row("3.3.3", "novelsc", AsItIs, Answered(416), "a registered scheme, but none that leads from here"),
    row("3.3.3", "novelsc", Invite, Answered(416), "a registered scheme, but none that leads from here"),
    row("3.3.4", "unksm2", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.3.4", "unksm2", Invite, Forwarded, "To, From and Contact may have any scheme: they route nothing"),
    row("3.3.5", "bext01", AsItIs, Answered(420), "whoever answers a request that requires the unknown answers 420"),
    row(
        "3.3.5",
        "bext01",
        Invite,
        Answered(420),
        "what Proxy-Require asks for is listed; what Require asks for is not the proxy's",
    ),
    row("3.3.5", "bext01", InDialog, Answered(420), "Proxy-Require holds within dialogs too"),
    row("3.3.6", "invut", AsItIs, Forwarded, "the body's type is the called side's business"),
    row("3.3.7", "regaut01", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.3.7", "regaut01", Invite, Forwarded, "Authorization is the called side's business"),
    row("3.3.8", "multi01", AsItIs, Answered(400), "of two From, To, Call-ID or CSeq each reads another"),
    row("3.3.9", "mcl01", AsItIs, Answered(400), "two lengths are as good as none"),
    row("3.3.10", "bcast", AsItIs, Dropped, STRAY),
    row(
        "3.3.10",
        "bcast",
        InCall(&[("SIP/2.0/UDP {caller};", "SIP/2.0/UDP 255.255.255.255;")]),
        Forwarded,
        "it goes where the request came from, and never to a broadcast address that a response names",
    ),
    row("3.3.11", "zeromf", AsItIs, Answered(200), "OPTIONS may end where Max-Forwards does (RFC 3261 §16.3 step 3)"),
    row("3.3.11", "zeromf", Invite, Answered(483), "it may not go on"),
    row("3.3.11", "zeromf", InDialog, Answered(483), "it may not go on"),
    row("3.3.12", "cparam01", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.3.12", "cparam01", Invite, Forwarded, NOT_READ),
    row("3.3.13", "cparam02", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.3.13", "cparam02", Invite, Forwarded, NOT_READ),
    row("3.3.14", "regescrt", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("3.3.14", "regescrt", Invite, Forwarded, "headers in a Contact's URI stay there"),
    row("3.3.15", "sdp01", AsItIs, Forwarded, "Accept is the called side's business"),
    row(
        "3.4.1",
        "inv2543",
        AsItIs,
        Forwarded,
        "a peer of RFC 2543: no branch, no From tag, no Max-Forwards, which is added",
    ),
];

/// Sent to an edge with an IPv4 address and to one with an IPv6 address.
pub(crate) const RFC_5118: &[Row] = &[
    row("4.1", "ipv6-good", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("4.1", "ipv6-good", Invite, Forwarded, "an IPv6 reference is a host like any other"),
    row("4.2", "ipv6-bad", AsItIs, Answered(405), NOT_OUR_METHOD),
    row(
        "4.2",
        "ipv6-bad",
        Invite,
        Answered(400),
        "without brackets nobody can tell host from port; the scheme is known",
    ),
    row("4.3", "port-ambiguous", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("4.3", "port-ambiguous", Invite, Forwarded, "within the brackets 5070 is part of the address"),
    row("4.4", "port-unambiguous", AsItIs, Answered(405), NOT_OUR_METHOD),
    row("4.4", "port-unambiguous", Invite, Forwarded, "behind the brackets 5070 is the port"),
    row("4.5", "via-received-param-with-delim", AsItIs, Answered(404), OWN_RECEIVED),
    row("4.5", "via-received-param-with-delim", InviteWith(&[(";tag=bd76ya", "")]), Forwarded, OWN_RECEIVED),
    row(
        "4.5",
        "via-received-param-with-delim",
        InviteWith(&[
            (";tag=bd76ya", ""),
            (";received", ";branch=z9hG4bKdelim2\r\nVia: SIP/2.0/UDP [2001:db8::9:2];received"),
        ]),
        Forwarded,
        "another hop's `received` stays, with brackets",
    ),
    row("4.5", "via-received-param-no-delim", AsItIs, Answered(200), OWN_RECEIVED),
    row("4.5", "via-received-param-no-delim", Invite, Forwarded, OWN_RECEIVED),
    row(
        "4.5",
        "via-received-param-no-delim",
        InviteWith(&[(";received", ";branch=z9hG4bKnodelim2\r\nVia: SIP/2.0/UDP [2001:db8::9:2];received")]),
        Forwarded,
        "another hop's `received` stays, without brackets",
    ),
    row("4.6", "ipv6-in-sdp", AsItIs, Forwarded, "the body is the user agents' business"),
    row("4.7", "mult-ip-in-header", AsItIs, Answered(404), NO_DIALOG),
    row(
        "4.7",
        "mult-ip-in-header",
        InviteWith(&[(";tag=9817--94", "")]),
        Forwarded,
        "the hops of one path may have addresses of both kinds",
    ),
    row("4.8", "mult-ip-in-sdp", AsItIs, Forwarded, "the body is the user agents' business"),
    row("4.9", "ipv4-mapped-ipv6", AsItIs, Forwarded, "an IPv4 address may be written as an IPv6 one"),
    row("4.10", "ipv6-bug-abnf-3-colons", AsItIs, Answered(200), OWN_OPTIONS),
    row(
        "4.10",
        "ipv6-bug-abnf-3-colons",
        Invite,
        Forwarded,
        "peers that follow RFC 3261's grammar to the letter write three colons",
    ),
    row("4.10", "ipv6-correct-abnf-2-colons", AsItIs, Answered(200), OWN_OPTIONS),
    row("4.10", "ipv6-correct-abnf-2-colons", Invite, Forwarded, "two colons are right"),
];
