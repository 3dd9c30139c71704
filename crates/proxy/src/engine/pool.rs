//! Memory for messages that are kept to be sent again.

/// Kept messages. Buffers come in a few sizes and are used again, so that keeping a message allocates nothing in steady state.
#[derive(Debug)]
pub(super) struct Pool {
    free: [Vec<Box<[u8]>>; FINE + COARSE.len()],
    held: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { free: std::array::from_fn(|_| Vec::new()), held: 0 }
    }
}

impl Pool {
    /// A copy of `bytes`.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Kept {
        if bytes.is_empty() {
            return Kept::default();
        }
        let (class, size) = class(bytes.len());
        let free = self.free.get_mut(class).and_then(Vec::pop).filter(|buffer| buffer.len() == size);
        let mut buffer = free.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        self.held += size as u64;
        if let Some((message, rest)) = buffer.split_at_mut_checked(bytes.len()) {
            message.copy_from_slice(bytes);
            if let Some(end) = rest.last_chunk_mut() {
                *end = (size.saturating_sub(bytes.len()) as u16).to_le_bytes();
            }
        }
        Kept(buffer)
    }

    /// Bytes that keeping a message of this length takes.
    pub(super) fn cost(length: usize) -> u64 {
        class(length).1 as u64
    }

    /// Keeps `bytes` instead of what is kept, in a smaller buffer when one is enough.
    pub(super) fn replace(&mut self, kept: &mut Kept, bytes: &[u8]) {
        let before = std::mem::replace(kept, self.keep(bytes));
        self.release(before);
    }

    /// Takes a buffer back.
    pub(super) fn release(&mut self, kept: Kept) {
        let size = kept.0.len();
        self.held -= size as u64;
        let (class, of_class) = class(size.saturating_sub(UNUSED));
        if let Some(free) = self.free.get_mut(class).filter(|_| size == of_class)
            && free.len() * size < FREE_BYTES
        {
            free.push(kept.0);
        }
    }

    /// Bytes of all buffers that are in use.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

/// A kept message; empty until something is kept. The last two bytes of its buffer say how many of it are unused, themselves included:
/// there is one of these for each transaction, whether it keeps something or not.
#[derive(Debug, Default)]
pub(super) struct Kept(Box<[u8]>);

impl Kept {
    pub(super) fn bytes(&self) -> &[u8] {
        let unused = self.0.last_chunk().map_or(0, |unused| usize::from(u16::from_le_bytes(*unused)));
        self.0.get(..self.0.len().saturating_sub(unused)).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The class of a message of this length, and the size of its buffers.
fn class(length: usize) -> (usize, usize) {
    let needed = length + UNUSED;
    if needed <= FINE * STEP - OF_ALLOCATOR {
        let steps = (needed + OF_ALLOCATOR).div_ceil(STEP);
        return (steps - 1, steps * STEP - OF_ALLOCATOR);
    }
    let coarse = COARSE.iter().position(|size| *size >= needed).unwrap_or(COARSE.len());
    (FINE + coarse, COARSE.get(coarse).copied().unwrap_or(needed))
}

/// Bytes that say how much of a buffer is unused.
const UNUSED: usize = 2;
/// Buffer sizes in bytes: multiples of this, with what the allocator adds. A usual INVITE has 900 to 1,500 bytes, without its body 600 to
/// 1,000, a response 400 to 800; half a step of each is lost.
const STEP: usize = 32;
/// How many of them.
const FINE: usize = 48;
/// Bytes that glibc's allocator puts before each piece; with them it gives multiples of 16.
const OF_ALLOCATOR: usize = 8;
/// Then these. 64 KiB is the largest datagram; what a stream has brought may be longer, and its buffer is not used again.
const COARSE: [usize; 3] = [2_560, 8_192, 65_536];

/// Bytes of one size that wait to be used again: enough for a burst of a thousand, bounded so that a flood's memory is given back.
const FREE_BYTES: usize = 1 << 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_is_counted() {
        let mut pool = Pool::default();
        for length in [0, 1, 21, 22, 23, 54, 55, 1_526, 1_527, 2_558, 2_559, 8_190, 65_507, 65_534, 65_535, 200_000] {
            for byte in [b'a', b'b'] {
                let message = vec![byte; length];
                let mut kept = pool.keep(&message);
                assert_eq!(kept.bytes(), message, "{length} bytes");
                assert_eq!(kept.is_empty(), length == 0);
                assert_eq!(pool.held(), if length == 0 { 0 } else { Pool::cost(length) });
                assert!(Pool::cost(length) > length as u64);
                pool.replace(&mut kept, b"less");
                assert_eq!((kept.bytes(), pool.held()), (b"less".as_slice(), Pool::cost(4)));
                pool.release(kept);
                assert_eq!(pool.held(), 0);
            }
        }
    }

    #[test]
    fn a_buffer_is_used_again_for_what_fits_into_it() {
        let mut pool = Pool::default();
        let kept = pool.keep(&[b'a'; 600]);
        let place = kept.bytes().as_ptr();
        pool.release(kept);
        let kept = pool.keep(&[b'b'; 605]);
        assert_eq!((kept.bytes().as_ptr(), kept.bytes()), (place, [b'b'; 605].as_slice()));
    }
}
