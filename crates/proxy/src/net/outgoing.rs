use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::numbers::NetCounters;
use super::sys::{BATCH, Udp};

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
        mut datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
    ) {
        let mut batch: [(SocketAddr, &[u8]); BATCH] = [(UNSPECIFIED, &[]); BATCH];
        loop {
            let mut count = 0;
            for (place, datagram) in batch.iter_mut().zip(&mut datagrams) {
                *place = datagram;
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            let taken = if self.is_empty() { transmit(socket, counters, batch) } else { 0 };
            for (to, bytes) in batch.iter().skip(taken) {
                if !self.push(*to, bytes) {
                    counters.send_queue_drops += 1;
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// The socket has room again.
    pub(super) fn resume(&mut self, socket: &Udp, counters: &mut NetCounters) {
        while !self.is_empty() {
            let mut batch: [(SocketAddr, &[u8]); BATCH] = [(UNSPECIFIED, &[]); BATCH];
            let mut start = self.gone;
            let mut count = 0;
            for (place, (to, length)) in batch.iter_mut().zip(&self.entries) {
                *place = (*to, self.bytes.get(start..start + length).unwrap_or_default());
                start += length;
                count += 1;
            }
            let taken = transmit(socket, counters, batch.get(..count).unwrap_or_default());
            for (_, length) in self.entries.drain(..taken) {
                self.gone += length;
            }
            if taken < count {
                break;
            }
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

const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Sends until the kernel has no more room, and returns how many are dealt with: sent, or refused for good and counted.
fn transmit(socket: &Udp, counters: &mut NetCounters, batch: &[(SocketAddr, &[u8])]) -> usize {
    let mut done = 0;
    while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
        match socket.send(rest) {
            Ok(sent) => {
                counters.datagrams_sent += sent as u64;
                done += sent;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // No route, refused by a filter, too long, no memory in the device: this datagram will not go, the next one may.
            Err(_) => {
                counters.send_errors += 1;
                done += 1;
            }
        }
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
