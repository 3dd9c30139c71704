//! Memory for messages that are kept to be sent again.

/// Kept messages. Buffers come in a few sizes and are used again, so that keeping a message allocates nothing in steady state.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: [Vec<Vec<u8>>; FINE + COARSE.len()],
    held: u64,
}

impl Pool {
    /// A copy of `bytes`.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Kept {
        let (class, size) = class(bytes.len());
        let mut buffer = self.free.get_mut(class).and_then(Vec::pop).unwrap_or_default();
        if buffer.capacity() == 0 {
            buffer.reserve_exact(size);
        }
        buffer.extend_from_slice(bytes);
        self.held += buffer.capacity() as u64;
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
    pub(super) fn release(&mut self, mut kept: Kept) {
        let capacity = kept.0.capacity();
        self.held -= capacity as u64;
        let (class, size) = class(capacity);
        if let Some(free) = self.free.get_mut(class).filter(|_| size == capacity)
            && free.len() * capacity < FREE_BYTES
        {
            kept.0.clear();
            free.push(kept.0);
        }
    }

    /// Bytes of all buffers that are in use.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

/// A kept message; empty until something is kept.
#[derive(Debug, Default)]
pub(super) struct Kept(Vec<u8>);

impl Kept {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The class of a message of this length, and the size of its buffers.
fn class(length: usize) -> (usize, usize) {
    if length <= FINE * STEP {
        let steps = length.div_ceil(STEP).max(1);
        return (steps - 1, steps * STEP);
    }
    let coarse = COARSE.iter().position(|size| *size >= length).unwrap_or(COARSE.len());
    (FINE + coarse, COARSE.get(coarse).copied().unwrap_or(length))
}

/// Buffer sizes in bytes: multiples of this. A usual INVITE has 900 to 1,500 bytes, without its body 600 to 1,000, a response 400 to
/// 800; half a step of each is lost.
const STEP: usize = 64;
/// How many of them.
const FINE: usize = 24;
/// Then these. 64 KiB is the largest datagram; what a stream has brought may be longer, and its buffer is not used again.
const COARSE: [usize; 3] = [2_560, 8_192, 65_536];

/// Bytes of one size that wait to be used again: enough for a burst of a thousand, bounded so that a flood's memory is given back.
const FREE_BYTES: usize = 1 << 20;
