//! Digest access authentication, the server's side (RFC 3261 §22, RFC 7616, RFC 8760): credentials are read and compared. What a nonce is
//! made of, how long it is good and whether it was used before is its maker's business.

use std::borrow::Cow;

use md5::Md5;
use sha2::{Digest, Sha256};

/// A hash of RFC 8760 §2.1. The `-sess` variants are for servers that never see a password; nobody uses them in SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `SHA-256`.
    Sha256,
    /// `MD5`, for user agents that know nothing else; the default where no algorithm is named (RFC 7616 §3.4).
    Md5,
}

impl Algorithm {
    /// What a header says.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    fn of(name: &[u8]) -> Option<Self> {
        [Self::Sha256, Self::Md5].into_iter().find(|known| name.eq_ignore_ascii_case(known.name().as_bytes()))
    }

    /// The hash of `parts` with colons between them, in lower-case hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha256 => hexadecimal(&joined::<Sha256>(parts)),
            Self::Md5 => hexadecimal(&joined::<Md5>(parts)),
        }
    }
}

/// The value of an Authorization header with the scheme Digest (RFC 7616 §3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Who it claims to be.
    pub username: Cow<'a, [u8]>,
    /// What the password is for.
    pub realm: Cow<'a, [u8]>,
    /// As the challenge had it.
    pub nonce: Cow<'a, [u8]>,
    /// The Request-URI, as its sender wrote it.
    pub uri: Cow<'a, [u8]>,
    /// The hash that the response was made with.
    pub algorithm: Algorithm,
    /// With `qop=auth`: which use of the nonce it is. User agents of RFC 2069 leave it out.
    pub count: Option<Count<'a>>,
    response: Cow<'a, [u8]>,
}

/// One use of a nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count<'a> {
    /// From 1; the client raises it with each use.
    pub number: u32,
    text: Cow<'a, [u8]>,
    cnonce: Cow<'a, [u8]>,
}

impl<'a> Credentials<'a> {
    /// Reads a header's value. `None`: another scheme, an algorithm or quality of protection that is not offered here, a parameter that
    /// is missing, there twice, or broken, or too long a value.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
        if value.len() > MOST_BYTES || !scheme.eq_ignore_ascii_case(SCHEME) || !rest.first()?.is_ascii_whitespace() {
            return None;
        }
        let mut known: [Option<Cow<'a, [u8]>>; NAMES.len()] = Default::default();
        let mut parameters = Parameters { rest };
        while let Some((name, value)) = parameters.next()? {
            let Some(place) = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known)) else { continue };
            // Of two, each of two readers could take another one.
            if known.get_mut(place)?.replace(value).is_some() {
                return None;
            }
        }
        let [username, realm, nonce, uri, response, algorithm, qop, cnonce, nc] = known;
        let count = match qop {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case(b"auth") => {
                let text = nc?;
                Some(Count { number: count(&text)?, text, cnonce: cnonce? })
            }
            Some(_) => return None,
        };
        let algorithm = algorithm.map_or(Some(Algorithm::Md5), |name| Algorithm::of(&name))?;
        Some(Self {
            username: username?,
            realm: realm?,
            nonce: nonce?,
            uri: uri?,
            response: response?,
            algorithm,
            count,
        })
    }

    /// Whether who wrote them knows `password`. The time that this takes says nothing about where the responses differ.
    pub fn prove(&self, method: &[u8], password: &[u8]) -> bool {
        let hash = |parts: &[&[u8]]| self.algorithm.hash(parts);
        let secret = hash(&[&self.username, &self.realm, password]);
        let request = hash(&[method, &self.uri]);
        let expected = match &self.count {
            Some(Count { text, cnonce, .. }) => hash(&[&secret, &self.nonce, text, cnonce, b"auth", &request]),
            None => hash(&[&secret, &self.nonce, &request]),
        };
        expected.len() == self.response.len()
            && expected
                .iter()
                .zip(self.response.iter())
                .fold(0, |all, (ours, theirs)| all | (ours ^ theirs.to_ascii_lowercase()))
                == 0
    }
}

/// Name and value of the parameters that follow the scheme.
struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// The outer `None`: what follows is no parameter. The inner one: nothing follows.
    #[allow(clippy::type_complexity, reason = "an end and an error, each once")]
    fn next(&mut self) -> Option<Option<(&'a [u8], Cow<'a, [u8]>)>> {
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
        let start = self.rest.iter().position(|byte| !is_between(byte)).unwrap_or(self.rest.len());
        let rest = self.rest.get(start..)?;
        if rest.is_empty() {
            self.rest = rest;
            return Some(None);
        }
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest.get(..equals)?.trim_ascii_end();
        if name.is_empty() || name.iter().any(|byte| is_between(byte) || *byte == b'"') {
            return None;
        }
        let value = rest.get(equals + 1..)?.trim_ascii_start();
        let (value, rest) = match value.first() {
            Some(b'"') => quoted(value)?,
            _ => {
                let end = value.iter().position(is_between).unwrap_or(value.len());
                let (value, rest) = value.split_at_checked(end)?;
                (Cow::Borrowed(value), rest)
            }
        };
        self.rest = rest;
        Some(Some((name, value)))
    }
}

/// A quoted string without quotes and escapes, and what follows it.
fn quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let inner = text.get(1..)?;
    let mut escapes = false;
    let mut at = 0;
    loop {
        match inner.get(at)? {
            b'"' => break,
            b'\\' => {
                escapes = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let value = inner.get(..at)?;
    let rest = inner.get(at + 1..)?;
    if !escapes {
        return Some((Cow::Borrowed(value), rest));
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some((Cow::Owned(plain), rest))
}

/// `nc`: eight hexadecimal digits, from 1.
fn count(text: &[u8]) -> Option<u32> {
    let digit = |all: u32, digit: &u8| Some(all << 4 | char::from(*digit).to_digit(16)?);
    let number = text.iter().try_fold(0, digit).filter(|_| text.len() == 8)?;
    (number > 0).then_some(number)
}

fn joined<H: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = H::new();
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    let digit = |half: u8| char::from_digit(half.into(), 16).map_or(b'0', |digit| digit as u8);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

const SCHEME: &[u8] = b"Digest";
/// The parameters that are read; others, such as `opaque`, are allowed and mean nothing here.
const NAMES: [&[u8]; 9] =
    [b"username", b"realm", b"nonce", b"uri", b"response", b"algorithm", b"qop", b"cnonce", b"nc"];
/// Bytes of the longest value that is looked at: five times what a user agent with a long Request-URI writes.
const MOST_BYTES: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2617 §3.5, which RFC 7616 §3.9.1 has again with another nonce.
    const RFC_2617: &str = r#"Digest username="Mufasa", realm="testrealm@host.com",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", qop=auth, nc=00000001, cnonce="0a4f113b",
        response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
    /// RFC 7616 §3.9.1.
    const RFC_7616_MD5: &str = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
        algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth,
        response="8ca523f5e9506fed4657c9700eebdbec", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;
    /// RFC 7616 §3.9.1.
    const RFC_7616_SHA: &str = r#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
        algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth,
        response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

    #[test]
    fn the_examples_of_the_rfcs_prove_their_password_and_no_other() {
        for (text, password, algorithm) in [
            (RFC_2617, "Circle Of Life", Algorithm::Md5),
            (RFC_7616_MD5, "Circle of Life", Algorithm::Md5),
            (RFC_7616_SHA, "Circle of Life", Algorithm::Sha256),
        ] {
            let credentials = Credentials::parse(text.as_bytes()).expect(text);
            assert_eq!(credentials.algorithm, algorithm);
            assert_eq!(credentials.count.as_ref().map(|count| count.number), Some(1));
            assert!(credentials.prove(b"GET", password.as_bytes()), "{text}");
            assert!(!credentials.prove(b"GET", b"Circle of life"), "another password");
            assert!(!credentials.prove(b"PUT", password.as_bytes()), "another method");
            let other = text.replace("00000001", "00000002");
            assert!(!Credentials::parse(other.as_bytes()).expect("sound").prove(b"GET", password.as_bytes()));
        }
    }

    #[test]
    fn without_qop_it_is_rfc_2069() {
        // MD5(MD5("bob:biloxi.com:zanzibar") ":" nonce ":" MD5("INVITE:sip:bob@biloxi.com")), as sipp and others of its age write it.
        let text = r#"Digest username="bob",realm="biloxi.com",nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",uri="sip:bob@biloxi.com",response="bf57e4e0d0bffc0fbaedce64d59add5e""#;
        let credentials = Credentials::parse(text.as_bytes()).expect("sound");
        assert_eq!(credentials.count, None);
        assert!(credentials.prove(b"INVITE", b"zanzibar"));
        assert!(!credentials.prove(b"INVITE", b"zanzibaR"));
    }

    #[test]
    fn quotes_escapes_case_and_white_space_are_read_as_the_grammar_has_them() {
        let text = "DIGEST  Username = \"a\\\"b\\\\c\" ,\r\n\t,realm=\"\",NONCE=n,uri=\"sip:a;b=c,d\",\
                    response=\"x\", algorithm=\"sha-256\", qop=\"AUTH\", nc=0000000A, cnonce=\"\"";
        let credentials = Credentials::parse(text.as_bytes()).expect("sound");
        assert_eq!(*credentials.username, *b"a\"b\\c");
        assert_eq!(*credentials.uri, *b"sip:a;b=c,d");
        assert_eq!((&*credentials.realm, &*credentials.nonce), (&b""[..], &b"n"[..]));
        assert_eq!(credentials.algorithm, Algorithm::Sha256);
        assert_eq!(credentials.count.map(|count| count.number), Some(10));
    }

    #[test]
    fn what_is_broken_is_no_credentials() {
        let sound =
            r#"Digest username="u",realm="r",nonce="n",uri="sip:a@b",response="x",qop=auth,nc=00000001,cnonce="c""#;
        assert!(Credentials::parse(sound.as_bytes()).is_some());
        let broken = [
            "".to_owned(),
            "Digest".to_owned(),
            "Digest ".to_owned(),
            sound.replace("Digest", "Basic"),
            sound.replace("Digest ", "Digest"),
            sound.replace("username=\"u\",", ""),
            sound.replace("nonce=\"n\"", "nonce=\"n\",nonce=\"n\""),
            sound.replace("\"n\"", "\"n"),
            sound.replace("uri=\"sip:a@b\"", "uri"),
            sound.replace("realm=", "=x,realm="),
            sound.replace("qop=auth", "qop=auth-int"),
            sound.replace(",cnonce=\"c\"", ""),
            sound.replace("nc=00000001", "nc=1"),
            sound.replace("nc=00000001", "nc=00000000"),
            sound.replace("nc=00000001", "nc=0000000g"),
            sound.replace("nc=00000001,", ""),
            format!("{sound},algorithm=SHA-512-256"),
            format!("{sound},algorithm=MD5-sess"),
            format!("{sound},opaque=\"\\"),
            format!("{sound},opaque=\"{}\"", "x".repeat(MOST_BYTES)),
        ];
        for text in broken {
            assert_eq!(Credentials::parse(text.as_bytes()), None, "{text}");
        }
        for end in 0..sound.len() {
            // Whatever is cut off: no panic, and nothing that proves anything.
            let cut = Credentials::parse(&sound.as_bytes()[..end]);
            assert!(cut.is_none_or(|credentials| !credentials.prove(b"INVITE", b"p")));
        }
    }
}
