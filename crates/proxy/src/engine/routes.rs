//! The path of a request within a dialog: which of its routes are ours, and what comes next (RFC 3261 §16.4, §16.6 steps 6 and 7).

use sipedge_sip::Span;
use sipedge_sip::message::{Edits, Element, HeaderName, Message};
use sipedge_sip::uri::{NameAddr, Uri};

use super::head::Head;
use super::setup::Setup;
use super::token::{Direction, Token};

/// What becomes of Request-URI and Route of a request, and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    removals: [Span; MOST_OWN_ROUTES],
    count: usize,
    /// What the Request-URI becomes, when a strict router is before or behind us.
    request_uri: Option<&'a [u8]>,
    /// The Request-URI that a strict router behind us finds at the end of Route, and the place for it.
    appended: Option<(u32, &'a [u8])>,
    /// What the nearest route of ours says.
    pub(super) token: Token,
    pub(super) direction: Direction,
    /// The URI that leads to the next hop.
    pub(super) next: Uri<'a>,
}

/// Why a request has no path through this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPath {
    /// A Route cannot be read, or there are too many of ours.
    Broken,
    /// A route that names us carries no token of this call.
    Forged,
    /// None of its routes is ours, or it leads back to us.
    NoDialog,
    /// The next URI cannot be read, or has a scheme that is no SIP.
    Scheme,
}

impl<'a> Path<'a> {
    /// Reads the routes of a request at `now`, in seconds since the epoch.
    pub(super) fn of(message: &Message<'a>, head: &Head<'a>, setup: &Setup, now: u64) -> Result<Self, NoPath> {
        let verify = |uri: &Uri<'_>| Token::verify(uri.user.unwrap_or_default(), &setup.token_keys, &head.call(), now);
        let mut path = Draft { removals: [Span::default(); MOST_OWN_ROUTES], count: 0 };
        let mut token = None;
        let mut request_uri = head.request.uri.text;
        let (mut taken, mut before_taken) = (None, None);
        // A strict router before us has put our own route into the Request-URI, and the remote target behind all routes (§16.4).
        let from_strict = head.uri.filter(|uri| setup.is_ours(uri)).and_then(|uri| verify(&uri));
        if let Some(found) = from_strict {
            let (before, last) = last_two(message).ok_or(NoPath::NoDialog)?;
            request_uri = route_uri(last).ok_or(NoPath::Broken)?.0;
            path.push(removal_of_last(before, last)).ok_or(NoPath::Broken)?;
            token = Some(found);
            taken = Some(last.span);
            before_taken = before.map(|before| before.span);
        }
        // A SIPS resource is reached as by a SIPS URI, whatever route leads there (§16.6 step 7).
        let target = if from_strict.is_some() { Uri::parse(request_uri) } else { head.uri };
        let secure = target.is_some_and(|uri| uri.secure);
        // With the last value gone, the one before it may be the only one left in its line.
        let removal = |element: &Element<'_>| match Some(element.span) == before_taken {
            true => element.line(),
            false => element.removal(),
        };
        let mut next = None;
        let mut after = 0;
        for header in message.headers(HeaderName::Route) {
            for element in header.elements().filter(|element| Some(element.span) != taken) {
                after = element.line().end;
                if next.is_some() {
                    continue;
                }
                let (text, uri) = route_uri(element).ok_or(NoPath::Broken)?;
                if !setup.is_ours(&uri) {
                    next = Some((element, text, uri));
                    continue;
                }
                token = Some(verify(&uri).ok_or(NoPath::Forged)?);
                path.push(removal(&element)).ok_or(NoPath::Broken)?;
            }
        }
        let (token, direction) = token.ok_or(NoPath::NoDialog)?;
        let mut appended = None;
        let next = match next {
            Some((_, _, uri)) if uri.is_loose() => uri,
            Some((element, text, uri)) => {
                // The next hop is a strict router (§16.6 step 6).
                path.push(removal(&element)).ok_or(NoPath::Broken)?;
                appended = Some((after, request_uri));
                request_uri = text;
                uri
            }
            None => target.ok_or(NoPath::Scheme)?,
        };
        if setup.is_ours(&next) {
            // Nothing of ours is a remote target: sent on, it would come back until Max-Forwards ends it.
            return Err(NoPath::NoDialog);
        }
        let next = Uri { secure: secure || next.secure, ..next };
        let changed = (request_uri != head.request.uri.text).then_some(request_uri);
        Ok(Self { removals: path.removals, count: path.count, request_uri: changed, appended, token, direction, next })
    }

    /// Notes what changes on the way.
    pub(super) fn note(&self, head: &Head<'_>, edits: &mut Edits) {
        for removal in self.removals.iter().take(self.count) {
            edits.remove(*removal);
        }
        if let Some(uri) = self.request_uri {
            edits.replace(head.request.uri.span, |out| out.extend_from_slice(uri));
        }
        if let Some((at, uri)) = self.appended {
            edits.insert(at, |out| {
                out.extend_from_slice(b"Route: <");
                out.extend_from_slice(uri);
                out.extend_from_slice(b">\r\n");
            });
        }
    }
}

struct Draft {
    removals: [Span; MOST_OWN_ROUTES],
    count: usize,
}

impl Draft {
    /// `None`: there is no room for it.
    fn push(&mut self, removal: Span) -> Option<()> {
        *self.removals.get_mut(self.count)? = removal;
        self.count += 1;
        Some(())
    }
}

/// The URI of a Route element without headers (RFC 3261 §19.1.1 allows none there), as text and taken apart.
fn route_uri(element: Element<'_>) -> Option<(&[u8], Uri<'_>)> {
    // A fold within a URI would end the start line that it may be put into.
    let text = NameAddr::parse(element.text)?.uri;
    // First all at once, whether there is anything that could be one.
    if text.iter().fold(false, |any, byte| any | (*byte <= b' ')) && text.iter().any(u8::is_ascii_whitespace) {
        return None;
    }
    let uri = Uri::parse(text)?;
    let host_on = memchr::memchr(b'@', text).unwrap_or_default();
    let headers = memchr::memchr(b'?', text.get(host_on..)?).map_or(text.len(), |at| host_on + at);
    Some((text.get(..headers)?, uri))
}

/// The last Route element, and the one before it when both stand in one header.
fn last_two<'a>(message: &Message<'a>) -> Option<(Option<Element<'a>>, Element<'a>)> {
    let mut elements = message.elements(HeaderName::Route);
    let mut last = elements.next()?;
    let mut before = None;
    for element in elements {
        before = Some(std::mem::replace(&mut last, element));
    }
    Some((before.filter(|before| before.line() == last.line()), last))
}

fn removal_of_last(before: Option<Element<'_>>, last: Element<'_>) -> Span {
    before.map_or(last.line(), |before| Span { start: before.span.end, end: last.span.end })
}

/// A call that passes the edge twice over two transports has four route entries of ours; more than a few are a loop.
const MOST_OWN_ROUTES: usize = 8;
