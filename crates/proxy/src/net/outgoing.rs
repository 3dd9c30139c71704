use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::numbers::NetCounters;
use super::sys::Udp;

/// Bytes that may wait for a socket whose send buffer is full. A UDP send buffer empties at the link's speed, so more means that the
/// link is too slow, and a late SIP message is worth less than a dropped one: the sender retransmits.
const MAX_BYTES: usize = 1 << 20;

/// Datagrams that may wait.
const MAX_DATAGRAMS: usize = 2_048;

/// The way out of one socket: batches, and a bounded queue for the moments when the kernel has no room.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    entries: VecDeque<(SocketAddr, usize)>,
    /// Bytes at the start of `bytes` that have been sent.
    gone: usize,
}

impl Outgoing {
    /// Sends `datagrams` in order, after those that wait already.
    pub(super) fn send<'a>(
        &mut self,
        socket: &Udp,
        counters: &mut NetCounters,
        mut datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])> + Clone,
    ) {
        if self.is_empty() {
            transmit(socket, counters, &mut datagrams);
        }
        for (to, bytes) in datagrams {
            if !self.push(to, bytes) {
                counters.send_queue_drops += 1;
            }
        }
    }

    /// The socket has room again.
    pub(super) fn resume(&mut self, socket: &Udp, counters: &mut NetCounters) {
        let (all, mut start) = (&self.bytes, self.gone);
        let mut waiting = self.entries.iter().map(move |(to, length)| {
            let bytes = all.get(start..start + length).unwrap_or_default();
            start += length;
            (*to, bytes)
        });
        let taken = transmit(socket, counters, &mut waiting);
        for (_, length) in self.entries.drain(..taken) {
            self.gone += length;
        }
        if self.is_empty() {
            self.bytes.clear();
            self.gone = 0;
        }
    }

    /// Whether nothing waits for room.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn push(&mut self, to: SocketAddr, bytes: &[u8]) -> bool {
        if self.gone > MAX_BYTES / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        if self.entries.len() >= MAX_DATAGRAMS || self.bytes.len() + bytes.len() > MAX_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.entries.push_back((to, bytes.len()));
        true
    }
}

/// Sends until the kernel has no more room, takes what is dealt with from `datagrams`, sent, or refused for good and counted, and returns
/// how many that were.
fn transmit<'a>(
    socket: &Udp,
    counters: &mut NetCounters,
    datagrams: &mut (impl Iterator<Item = (SocketAddr, &'a [u8])> + Clone),
) -> usize {
    let mut done = 0;
    let mut rest = datagrams.clone().peekable();
    while rest.peek().is_some() {
        let dealt_with = match socket.send(rest) {
            Ok(sent) => {
                counters.datagrams_sent += sent as u64;
                sent
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            // No route, refused by a filter, too long, no memory in the device: this datagram will not go, the next one may.
            Err(_) => {
                counters.send_errors += 1;
                1
            }
        };
        done += dealt_with;
        datagrams.by_ref().take(dealt_with).for_each(drop);
        rest = datagrams.clone().peekable();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_cannot_be_reached_costs_only_its_own_datagram() {
        let socket = Udp::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let good = peer.local_addr().unwrap();
        let bad = "[2001:db8::1]:5060".parse().unwrap();
        let mut counters = NetCounters::default();
        let batch = [(good, &b"one"[..]), (bad, b"two"), (bad, b"three"), (good, b"four")];
        let mut outgoing = Outgoing::default();
        outgoing.send(&socket, &mut counters, batch.into_iter());
        assert_eq!((counters.datagrams_sent, counters.send_errors, counters.send_queue_drops), (2, 2, 0));
        let mut buffer = [0; 16];
        for expected in ["one", "four"] {
            let length = peer.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
        }
    }

    #[test]
    fn what_waits_leaves_in_order_and_the_queue_is_bounded() {
        let socket = Udp::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let to = peer.local_addr().unwrap();
        let mut outgoing = Outgoing::default();
        for number in 0..100u8 {
            assert!(outgoing.push(to, &[number]));
        }
        let mut counters = NetCounters::default();
        outgoing.resume(&socket, &mut counters);
        assert!(outgoing.is_empty());
        let mut buffer = [0; 16];
        for number in 0..100u8 {
            assert_eq!(peer.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], number);
        }
        while outgoing.push(to, &[0; 1000]) {}
        assert!(outgoing.bytes.len() <= MAX_BYTES);
    }
}
