use sipedge_sip::message::{HeaderName, Layout, Message};
use sipedge_sip::uri::NameAddr;

/// Fewest digits by which a number without its country or area code is known again: a subscriber's number in the North American plan.
const LOCAL_DIGITS: usize = 7;

/// Which messages somebody wants to see. What is not set admits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this Call-ID, which is the same on both sides of the edge.
    pub call_id: Option<String>,
    /// Those whose Request-URI, From, To or P-Asserted-Identity names this number or user.
    pub number: Option<String>,
    /// Requests of these methods, in upper case, and the responses to them; empty: all.
    pub methods: Vec<String>,
}

impl Filter {
    /// Whether a message is wanted. One that cannot be read is judged by what can be read of it.
    pub(super) fn admits(&self, bytes: &[u8]) -> bool {
        if *self == Self::default() {
            return true;
        }
        let mut layout = Layout::default();
        if let Ok(message) = Message::read_without_body(bytes, &mut layout) {
            return self.admits_message(&message);
        }
        let refused = Message::read_refused(bytes, &mut layout);
        refused.is_some_and(|message| self.admits_message(&message))
    }

    fn admits_message(&self, message: &Message<'_>) -> bool {
        let has_call_id =
            |call_id: &String| message.call_id().is_some_and(|of_message| of_message == call_id.as_bytes());
        self.call_id.as_ref().is_none_or(has_call_id)
            && (self.methods.is_empty() || self.has_method(message))
            && self.number.as_ref().is_none_or(|number| names(message, number))
    }

    fn has_method(&self, message: &Message<'_>) -> bool {
        let of_request = message.request().map(|request| request.method.name());
        let method = of_request.or_else(|| Some(message.cseq()?.method.name()));
        method.is_some_and(|method| self.methods.iter().any(|wanted| wanted.as_bytes() == method))
    }
}

/// Whether a message names `number` where it says who calls whom.
fn names(message: &Message<'_>, number: &str) -> bool {
    let of_request = message.request().map(|request| request.uri.text);
    let addresses = [HeaderName::From, HeaderName::To, HeaderName::PAssertedIdentity];
    let of_headers = addresses.into_iter().flat_map(|name| message.headers(name));
    let uris = of_headers.filter_map(|header| NameAddr::parse(header.text)).map(|address| address.uri);
    of_request.into_iter().chain(uris).any(|uri| user(uri).is_some_and(|user| is_same(user, number.as_bytes())))
}

/// The user of a SIP URI without its parameters and password, or the number of a tel URI (RFC 3966).
fn user(uri: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = uri.split_at_checked(uri.iter().position(|byte| *byte == b':')?)?;
    let rest = rest.get(1..)?;
    let user = if scheme.eq_ignore_ascii_case(b"tel") {
        rest
    } else {
        rest.get(..rest.iter().position(|byte| *byte == b'@')?)?
    };
    user.split(|byte| matches!(byte, b';' | b':')).next()
}

/// Whether two are the same number, however it is written, or the same user. A number without its country or area code is the same as
/// the one with it.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (Some(one_digits), Some(other_digits)) = (digits(one), digits(other)) else { return one == other };
    let (short, long) =
        if one_digits.len() < other_digits.len() { (one_digits, other_digits) } else { (other_digits, one_digits) };
    short == long || short.len() >= LOCAL_DIGITS && long.ends_with(&short)
}

/// The digits of a number without its visual separators (RFC 3966 §5.1.1). `None`: it is no number.
fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let is_separator = |byte: &u8| matches!(byte, b'-' | b'.' | b'(' | b')' | b' ');
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !is_separator(byte)).collect();
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] =
        b"INVITE sip:+15551234567;npdi@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n\
        f: \"A\" <sip:alice@a.example>;tag=1\r\nt: <tel:+1-555-123-4567>\r\ni: one@a\r\nCSeq: 1 INVITE\r\n\
        P-Asserted-Identity: <sip:5550001111@a.example>\r\n\r\n";
    const OK: &[u8] = b"SIP/2.0 200 OK\r\nFrom: <sip:alice@a.example>;tag=1\r\nTo: <sip:bob@b.example>;tag=2\r\n\
        Call-ID: one@a\r\nCSeq: 2 BYE\r\n\r\n";

    fn number(number: &str, bytes: &[u8]) -> bool {
        Filter { number: Some(number.into()), ..Filter::default() }.admits(bytes)
    }

    #[test]
    fn a_number_is_found_however_it_is_written_and_a_short_one_only_whole() {
        for wanted in ["+15551234567", "15551234567", "(555) 123-4567", "1234567", "alice", "+1 555 000 1111"] {
            assert!(number(wanted, INVITE), "{wanted}");
        }
        for wanted in ["234567", "25551234567", "Alice", "a.example", "+15551234568"] {
            assert!(!number(wanted, INVITE), "{wanted}");
        }
        assert!(number("bob", OK) && !number("edge", OK));
    }

    #[test]
    fn a_method_admits_its_responses_too() {
        let of = |methods: &[&str]| Filter {
            methods: methods.iter().map(ToString::to_string).collect(),
            ..Filter::default()
        };
        assert!(of(&["INVITE"]).admits(INVITE) && !of(&["INVITE"]).admits(OK));
        assert!(of(&["ACK", "BYE"]).admits(OK) && !of(&["ACK", "BYE"]).admits(INVITE));
    }

    #[test]
    fn what_is_asked_for_has_to_be_so_together_and_noise_is_only_for_those_who_ask_for_nothing() {
        let of_call = |call_id: &str| Filter { call_id: Some(call_id.into()), ..Filter::default() };
        assert!(of_call("one@a").admits(INVITE) && of_call("one@a").admits(OK) && !of_call("one").admits(OK));
        let both = Filter { number: Some("bob".into()), ..of_call("one@a") };
        assert!(both.admits(OK) && !both.admits(INVITE));
        let cut = b"INVITE sip:b@c.example SIP/2.0\r\nCall-ID: one@a\r\nFrom: ";
        assert!(of_call("one@a").admits(cut), "a message without an end of its headers");
        assert!(Filter::default().admits(b"noise") && !of_call("one@a").admits(b"noise"));
    }
}
