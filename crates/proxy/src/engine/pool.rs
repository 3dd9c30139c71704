//! Memory for messages that are kept to be sent again.

/// Kept messages. Buffers come in a few sizes and are used again, so that keeping a message allocates nothing in steady state.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: [Vec<Vec<u8>>; SIZES.len()],
    held: u64,
}

impl Pool {
    /// A copy of `bytes`.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Kept {
        let class = SIZES.iter().position(|size| *size >= bytes.len()).unwrap_or(SIZES.len() - 1);
        let mut buffer = self.free.get_mut(class).and_then(Vec::pop).unwrap_or_default();
        if buffer.capacity() == 0 {
            buffer.reserve_exact(SIZES.get(class).copied().unwrap_or_default());
        }
        buffer.extend_from_slice(bytes);
        self.held += buffer.capacity() as u64;
        Kept(buffer)
    }

    /// Bytes that keeping a message of this length takes.
    pub(super) fn cost(length: usize) -> u64 {
        SIZES.iter().find(|size| **size >= length).map_or(length, |size| *size) as u64
    }

    /// Keeps only the first `length` bytes, in a smaller buffer when one is enough.
    pub(super) fn shorten(&mut self, kept: &mut Kept, length: usize) {
        let short = self.keep(kept.0.get(..length).unwrap_or(&kept.0));
        let long = std::mem::replace(kept, short);
        self.release(long);
    }

    /// Takes a buffer back.
    pub(super) fn release(&mut self, mut kept: Kept) {
        let capacity = kept.0.capacity();
        self.held -= capacity as u64;
        let class = SIZES.iter().position(|size| *size == capacity);
        if let Some(free) = class.and_then(|class| self.free.get_mut(class))
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

/// Buffer sizes in bytes. A usual INVITE has 900 to 1,500 bytes, without its body 600 to 1,000, a response 400 to 800; 64 KiB is the
/// largest datagram.
const SIZES: [usize; 8] = [384, 512, 768, 1_024, 1_536, 2_560, 8_192, 65_536];

/// Bytes of one size that wait to be used again: enough for a burst, bounded so that a flood's memory is given back.
const FREE_BYTES: usize = 4 << 20;
