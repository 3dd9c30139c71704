//! Takes the secrets out of a message that somebody is to see: same length, same layout, `x` for each letter.

use memchr::memmem;

use crate::engine::{TOKEN_LETTERS, TOKEN_SIGNATURE_LETTERS};

/// What stands in place of each byte of a secret.
const MASK: u8 = b'x';

/// Overwrites what lets somebody else act in a peer's or in the edge's name, or listen in:
///
/// - in Authorization and Proxy-Authorization the `response` of Digest, from which a password can be guessed, and all of any other scheme;
///   `rspauth` in Authentication-Info;
/// - the signature of a route token, in any URI of the head: with it a stranger may send requests within the call;
/// - in SDP the keys of media: `a=crypto` (RFC 4568), `k=`, and the password of ICE.
pub fn mask(message: &mut [u8]) {
    let end = head_end(message);
    let Some((head, body)) = message.split_at_mut_checked(end) else { return };
    mask_head(head);
    for line in body.split_mut(|byte| *byte == b'\n') {
        mask_body_line(line);
    }
}

/// Where the body begins; the whole length when the head has no end.
fn head_end(message: &[u8]) -> usize {
    let ends = [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"];
    let places = ends.iter().filter_map(|end| Some(memmem::find(message, end)? + end.len()));
    places.min().unwrap_or(message.len())
}

fn mask_head(head: &mut [u8]) {
    mask_tokens(head);
    let mut rest = head;
    while !rest.is_empty() {
        let length = header_length(rest);
        let (header, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = header.split_at_mut(colon + 1);
        let name = name.get(..colon).unwrap_or_default().trim_ascii();
        if [&b"authorization"[..], b"proxy-authorization"].iter().any(|it| name.eq_ignore_ascii_case(it)) {
            mask_credentials(value);
        } else if [&b"authentication-info"[..], b"proxy-authentication-info"]
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it))
        {
            let _ = mask_parameter(value, b"rspauth");
        }
    }
}

/// Bytes of the first header line together with the lines that it is folded over (RFC 3261 §7.3.1).
fn header_length(text: &[u8]) -> usize {
    let ends = memchr::memchr_iter(b'\n', text).map(|at| at + 1);
    let mut whole = ends.filter(|end| !matches!(text.get(*end), Some(b' ' | b'\t')));
    whole.next().unwrap_or(text.len())
}

fn mask_credentials(value: &mut [u8]) {
    let start = value.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(value.len());
    let Some(rest) = value.get_mut(start..) else { return };
    let scheme = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(0);
    let Some((scheme, parameters)) = rest.split_at_mut_checked(scheme) else { return };
    // Where a quote is left open nobody knows what is a response.
    let is_whole = scheme.eq_ignore_ascii_case(b"digest") && mask_parameter(parameters, b"response");
    if !is_whole {
        parameters.iter_mut().for_each(hide);
    }
}

/// Overwrites the values of a parameter in a list parted by commas; quotes are honoured. `false`: one of them is left open.
fn mask_parameter(list: &mut [u8], name: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let parameters = list.split_mut(|byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == b',' && !is_quoted
    });
    for parameter in parameters {
        let Some(equals) = parameter.iter().position(|byte| *byte == b'=') else { continue };
        let (before, value) = parameter.split_at_mut(equals);
        if before.trim_ascii().eq_ignore_ascii_case(name)
            && let Some(value) = value.get_mut(1..)
        {
            value.iter_mut().filter(|byte| **byte != b'"').for_each(hide);
        }
    }
    !is_quoted
}

/// Overwrites the signatures of route tokens: `sip:` or `sips:`, then as many letters of base64url as a token has, then `@`.
fn mask_tokens(head: &mut [u8]) {
    let ends: Vec<usize> = memchr::memchr_iter(b'@', head).collect();
    for end in ends {
        let Some(start) = end.checked_sub(TOKEN_LETTERS) else { continue };
        let user = head.get(start..end).unwrap_or_default();
        let before = head.get(start.saturating_sub(5)..start).unwrap_or_default();
        let follows_scheme = [&b"sip:"[..], b"sips:"].iter().any(|scheme| {
            before.get(before.len().saturating_sub(scheme.len())..).is_some_and(|end| end.eq_ignore_ascii_case(scheme))
        });
        if follows_scheme && user.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            let signature = head.get_mut(end - TOKEN_SIGNATURE_LETTERS..end).unwrap_or_default();
            signature.iter_mut().for_each(hide);
        }
    }
}

fn mask_body_line(line: &mut [u8]) {
    let starts_with = |line: &[u8], name: &[u8]| line.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name));
    if starts_with(line, b"a=crypto:") {
        let keys: Vec<usize> = memmem::find_iter(line, b"inline:").map(|at| at + 7).collect();
        for key in keys {
            let key = line.get_mut(key..).unwrap_or_default();
            key.iter_mut().take_while(|byte| !matches!(byte, b'|' | b';' | b' ' | b'\r')).for_each(hide);
        }
    }
    for name in [&b"a=ice-pwd:"[..], b"k="] {
        if starts_with(line, name) {
            line.iter_mut().skip(name.len()).for_each(hide);
        }
    }
}

fn hide(byte: &mut u8) {
    if !byte.is_ascii_whitespace() {
        *byte = MASK;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        mask(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_response_of_digest_goes_and_what_explains_a_refusal_stays() {
        let text = |response: &str, more: &str| {
            format!(
                "REGISTER sip:a.example SIP/2.0\r\nAuthorization: Digest username=\"response=1, \\\"\", realm=\"a\",\r\n nonce=\"n\", \
                 RESPONSE = \"{response}\", uri=\"sip:a.example\", opaque=\"\"\r\nproxy-authorization :Digest response={response}\r\n\
                 Authentication-Info: rspauth=\"{response}\", qop=auth\r\nX-Response: response=\"it stays\"\r\n\
                 Proxy-Authorization: Bearer {more}\r\nAuthorization: Digest {more}\r\n\r\nresponse=\"it stays\""
            )
        };
        let written = text("0123456789abcdef", "token");
        let expected = text("xxxxxxxxxxxxxxxx", "token").replace("Bearer token", "Bearer xxxxx");
        assert_eq!(masked(&written), expected);
    }

    #[test]
    fn credentials_that_end_anywhere_are_hidden_to_their_end() {
        for (written, expected) in [
            ("A sip:b SIP/2.0\r\nAuthorization: Digest a=\"abc", "A sip:b SIP/2.0\r\nAuthorization: Digest xxxxxx"),
            ("Authorization: Basic a:b\r\n\tc=\r\n\r\n", "Authorization: Basic xxx\r\n\txx\r\n\r\n"),
            ("Authorization:\r\n Digest\r\n response=a\r\n\r\n", "Authorization:\r\n Digest\r\n response=x\r\n\r\n"),
            ("Authorization: Digest a=\"o, response=abc\r\n\r\n", "Authorization: Digest xxxxx xxxxxxxxxxxx\r\n\r\n"),
        ] {
            assert_eq!(masked(written), expected);
        }
    }

    #[test]
    fn a_route_token_loses_its_signature_and_keeps_what_it_says() {
        let token = "AQECAwQFaAAAAAABsignedsignedsign";
        let text = |token: &str| {
            format!(
                "BYE sip:{token}@192.0.2.1 SIP/2.0\r\nRoute: <sip:{token}@203.0.113.10:5060;lr>, <SIPS:{token}@b>\r\n\
                 To: <sip:a{token}@b>, <sip:{}@b>, <{token}@b>\r\n\r\nsip:{token}@b",
                &token[1..]
            )
        };
        let hidden = "AQECAwQFaAAAAAABxxxxxxxxxxxxxxxx";
        let written = text(token);
        let (head, tail) = written.split_once("To:").unwrap();
        assert_eq!(masked(&written), head.replace(token, hidden) + "To:" + tail);
    }

    #[test]
    fn the_keys_of_media_are_hidden_and_the_rest_of_the_session_is_not() {
        let text = |key: &str, key2: &str, password: &str| {
            format!(
                "INVITE sip:a SIP/2.0\r\na=crypto:1 inline:kept\r\n\r\nv=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n\
                 a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20|1:4;inline:{key2} FEC_ORDER=FEC_SRTP\r\n\
                 a=ice-ufrag:abcd\r\na=ice-pwd:{password}\r\nk=clear:{password}\r\na=sendrecv\r\n"
            )
        };
        let expected = text("xxxxxx", "xxxx", "xxxxxxxx").replace("k=clear:", "k=xxxxxx");
        assert_eq!(masked(&text("WVNf+/", "a9b=", "secret=1")), expected);
    }

    proptest! {
        #[test]
        fn lines_keep_their_places_whatever_the_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut after = b"Authorization: Digest response=\"".to_vec();
            after.extend_from_slice(&bytes);
            let before = after.clone();
            mask(&mut after);
            prop_assert_eq!(before.len(), after.len());
            for (one, other) in before.iter().zip(&after) {
                prop_assert!(one == other || *other == MASK && !one.is_ascii_whitespace());
            }
        }
    }
}
