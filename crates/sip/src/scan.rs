//! Where a byte is, and what number digits are.
//!
//! Lines, URIs and parameters have 10 to 100 bytes: there `memchr`'s way to the widest vectors that the machine has, which it looks for at
//! run time, costs twice what the search itself does. These take the vectors that every machine of the target has, and are part of their
//! caller (measured: an INVITE of 20 lines is read in a quarter of the instructions).

#[cfg(target_arch = "aarch64")]
use memchr::arch::aarch64::neon::memchr as vectors;
#[cfg(target_arch = "x86_64")]
use memchr::arch::x86_64::sse2::memchr as vectors;

/// The place of the first such byte.
#[inline]
pub(crate) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    if text.len() < SHORT {
        return text.iter().position(|other| *other == byte);
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(search) = vectors::One::new(byte) {
        return search.find(text);
    }
    memchr::memchr(byte, text)
}

/// The place of the first byte that is one of two.
#[inline]
pub(crate) fn find2(bytes: [u8; 2], text: &[u8]) -> Option<usize> {
    let [first, second] = bytes;
    if text.len() < SHORT {
        return text.iter().position(|byte| *byte == first || *byte == second);
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(search) = vectors::Two::new(first, second) {
        return search.find(text);
    }
    memchr::memchr2(first, second, text)
}

/// A number of digits alone: no sign, which `parse` would take. `None` when it is none, or does not fit.
#[inline]
pub(crate) fn digits<N: TryFrom<u64>>(text: &[u8]) -> Option<N> {
    if text.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    N::try_from(number).ok()
}

/// Linear white space; line ends count, since inside a header value they can only be folds.
#[inline]
pub(crate) fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Less than this is searched byte by byte.
const SHORT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_wherever_it_is() {
        for length in 0..100 {
            for at in 0..length {
                let mut text = vec![b'x'; length];
                text[at..].fill(b'c');
                assert_eq!(find(b'c', &text), Some(at));
                assert_eq!(find2([b'a', b'c'], &text), Some(at));
                assert_eq!((find(b'd', &text), find2([b'a', b'b'], &text)), (None, None));
            }
        }
        assert_eq!((find(b'c', b""), find2([b'c', b'd'], b"")), (None, None));
    }

    #[test]
    fn digits_are_what_parse_takes_without_a_sign() {
        for text in ["", "0", "255", "256", "+1", "-1", " 1", "1 ", "0000000000000000000000000000255", "1x", "\u{b2}"] {
            let expected = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            assert_eq!(digits::<u8>(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(digits::<u64>(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(digits::<u64>(b"18446744073709551616"), None);
        assert_eq!(digits::<usize>(b"99999999999999999999999"), None);
    }
}
