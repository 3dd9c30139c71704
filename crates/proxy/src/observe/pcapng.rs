//! Captures as tcpdump, Wireshark and sngrep read them: pcapng (draft-ietf-opsawg-pcapng), each message as one UDP datagram over IP.
//!
//! Messages of TCP and TLS are datagrams here, too: each stands for itself, whenever the capture begins, and TLS needs no keys. What they
//! came over is in their Via and in the packet's comment.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;

/// Section Header Block, Interface Description Block, Interface Statistics Block, Enhanced Packet Block.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Tells the reader the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;

/// Packets begin with an IP header, of either version (LINKTYPE_RAW).
const LINK_TYPE: u16 = 101;

/// No packet is longer: the length fields of IP have 16 bits.
const SNAP_LENGTH: u32 = 65_575;

/// Longest message that fits into one datagram, in bytes, whatever the version of IP; a longer one is cut.
const MAX_PAYLOAD: usize = 65_507;

/// As most systems send.
const TIME_TO_LIVE: u8 = 64;

/// Options by their numbers.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const PACKET_FLAGS: u16 = 2;
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;

/// The two lowest bits of a packet's flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A message for a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// Whether it came in; else it went out.
    pub is_inbound: bool,
    /// Who sent it.
    pub source: SocketAddr,
    /// Whom it was sent to.
    pub destination: SocketAddr,
    /// A line for whoever looks at the packet.
    pub comment: &'a str,
    /// The message.
    pub message: &'a [u8],
}

/// A capture that is being written. It is whole after each call.
#[derive(Debug)]
pub struct Capture<W> {
    out: W,
    written: u64,
    block: Vec<u8>,
    packet: Vec<u8>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture; `interface` is what the reader shows as the interface's name.
    pub fn begin(out: W, interface: &str) -> io::Result<Self> {
        let mut capture = Self { out, written: 0, block: Vec::new(), packet: Vec::new() };
        capture.block(SECTION, |block| {
            block.extend(MAGIC.to_le_bytes());
            // Version 1.0, and a section of unknown length.
            block.extend(1_u16.to_le_bytes());
            block.extend(0_u16.to_le_bytes());
            block.extend(u64::MAX.to_le_bytes());
            option(block, APPLICATION, concat!("sipedge-proxy ", env!("CARGO_PKG_VERSION")).as_bytes());
            option(block, END_OF_OPTIONS, &[]);
        })?;
        capture.block(INTERFACE, |block| {
            block.extend(LINK_TYPE.to_le_bytes());
            block.extend(0_u16.to_le_bytes());
            block.extend(SNAP_LENGTH.to_le_bytes());
            option(block, INTERFACE_NAME, interface.as_bytes());
            option(block, END_OF_OPTIONS, &[]);
        })?;
        Ok(capture)
    }

    /// Adds a message.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let kept = packet.message.get(..MAX_PAYLOAD).unwrap_or(packet.message);
        let mut raw = std::mem::take(&mut self.packet);
        raw.clear();
        datagram(packet.source, packet.destination, kept, &mut raw)?;
        let cut = packet.message.len() - kept.len();
        let result = self.block(PACKET, |block| {
            block.extend(0_u32.to_le_bytes());
            moment(block, packet.at_us);
            block.extend(length(raw.len()).to_le_bytes());
            block.extend(length(raw.len() + cut).to_le_bytes());
            padded(block, &raw);
            let direction = if packet.is_inbound { INBOUND } else { OUTBOUND };
            option(block, PACKET_FLAGS, &direction.to_le_bytes());
            option(block, COMMENT, packet.comment.as_bytes());
            option(block, END_OF_OPTIONS, &[]);
        });
        self.packet = raw;
        result
    }

    /// Ends the capture: how many messages there were until `at_us`, and how many of them are missing here.
    pub fn end(mut self, at_us: u64, messages: u64, missing: u64) -> io::Result<u64> {
        self.block(STATISTICS, |block| {
            block.extend(0_u32.to_le_bytes());
            moment(block, at_us);
            option(block, RECEIVED, &messages.to_le_bytes());
            option(block, DROPPED, &missing.to_le_bytes());
            option(block, END_OF_OPTIONS, &[]);
        })?;
        self.out.flush()?;
        Ok(self.written)
    }

    /// Bytes that the capture has.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes a block, whole.
    fn block(&mut self, kind: u32, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        const LENGTHS: usize = 12;
        self.block.clear();
        self.block.extend(kind.to_le_bytes());
        self.block.extend([0; 4]);
        write(&mut self.block);
        let total = length(self.block.len() + LENGTHS - 8).to_le_bytes();
        self.block.extend(total);
        for (to, from) in self.block.iter_mut().skip(4).zip(total) {
            *to = from;
        }
        self.out.write_all(&self.block)?;
        self.out.flush()?;
        self.written += self.block.len() as u64;
        Ok(())
    }
}

/// An IP packet with a UDP datagram in it.
fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TIME_TO_LIVE),
        (from, to) => PacketBuilder::ipv6(as_v6(from).octets(), as_v6(to).octets(), TIME_TO_LIVE),
    };
    ip.udp(source.port(), destination.port()).write(out, payload).map_err(io::Error::other)
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Microseconds since the Unix epoch, the upper half first.
fn moment(block: &mut Vec<u8>, at_us: u64) {
    block.extend(((at_us >> 32) as u32).to_le_bytes());
    block.extend((at_us as u32).to_le_bytes());
}

/// A value that is too long for its length field is cut.
fn option(block: &mut Vec<u8>, number: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    block.extend(number.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    padded(block, value);
}

/// Everything in a block begins at a multiple of four bytes.
fn padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
}

/// Nothing here is longer than some 130 KB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind and contents of each block; panics where the lengths do not fit.
    fn blocks(mut capture: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        let mut blocks = Vec::new();
        while !capture.is_empty() {
            let length = number(&capture[4..8]) as usize;
            assert_eq!(number(&capture[length - 4..length]) as usize, length);
            assert!(length.is_multiple_of(4));
            blocks.push((number(&capture[..4]), capture[8..length - 4].to_vec()));
            capture = &capture[length..];
        }
        blocks
    }

    fn captured(source: &str, destination: &str, message: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        let mut capture = Capture::begin(&mut bytes, "edge").unwrap();
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let at_us = 1_800_000_000_000_001;
        let packet = Packet { at_us, is_inbound: true, source, destination, comment: "TLS", message };
        capture.packet(&packet).unwrap();
        let before = capture.written();
        assert!(capture.end(at_us, 1, 0).unwrap() > before);
        blocks(&bytes)
    }

    #[test]
    fn blocks_are_whole_and_in_the_order_that_readers_want() {
        let blocks = captured("192.0.2.1:5061", "192.0.2.2:40000", b"odd");
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, INTERFACE, PACKET, STATISTICS]);
        let (_, packet) = &blocks[2];
        let at = (1_800_000_000_000_001_u64 >> 32, 1_800_000_000_000_001_u64 & 0xffff_ffff);
        assert_eq!(packet[4..8], (at.0 as u32).to_le_bytes());
        assert_eq!(packet[8..12], (at.1 as u32).to_le_bytes());
        let raw = &packet[20..20 + 31];
        assert_eq!((raw[0], raw[9], &raw[28..]), (0x45, 17, &b"odd"[..]));
        assert_eq!(packet[20 + 31], 0, "padding");
    }

    #[test]
    fn a_message_that_no_datagram_can_have_is_cut_and_its_length_kept() {
        for (source, destination, header) in
            [("192.0.2.1:1", "192.0.2.2:2", 28), ("[2001:db8::1]:1", "[2001:db8::2]:2", 48)]
        {
            let blocks = captured(source, destination, &vec![b'x'; 70_000]);
            let (_, packet) = &blocks[2];
            assert_eq!(packet[12..16], (header + MAX_PAYLOAD as u32).to_le_bytes());
            assert_eq!(packet[16..20], (header + 70_000_u32).to_le_bytes());
        }
    }
}
