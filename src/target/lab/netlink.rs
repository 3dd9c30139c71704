//! Netfilter's netlink messages: attributes written, batches committed, dumps read.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::LabError;

/// Netlink protocol of netfilter (linux/netlink.h).
const NETLINK_NETFILTER: isize = 12;
/// Subsystems (linux/netfilter/nfnetlink.h).
pub(super) const SUBSYSTEM_CONNTRACK: u16 = 1;
pub(super) const SUBSYSTEM_NFTABLES: u16 = 10;
/// Message types that open and close a batch (linux/netfilter/nfnetlink.h).
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Netlink header, and netfilter's header behind it: family, version, resource (linux/netfilter/nfnetlink.h).
const HEADER: usize = 16;
pub(super) const NETFILTER_HEADER: usize = 4;
/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The kernel answers at once; past this time it has lost the answer (receive buffer overrun), which is an error.
const ANSWER_WITHIN_S: i64 = 2;

/// A list of netlink attributes.
#[derive(Debug, Clone, Default)]
pub(super) struct Attrs(Vec<u8>);

impl Attrs {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Attributes of this module are at most a few hundred bytes; a length that does not fit is refused by the kernel.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut terminated = value.as_bytes().to_vec();
        terminated.push(0);
        self.bytes(kind, &terminated)
    }

    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    pub(super) fn nested_bytes(self, kind: u16, inner: &[u8]) -> Self {
        self.bytes(kind | NESTED, inner)
    }

    pub(super) fn append(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// One request to netfilter.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// What it does, as a verb phrase, for errors.
    pub(super) what: String,
    /// Subsystem in the high byte, type in the low one.
    pub(super) kind: u16,
    /// `NLM_F_CREATE` and the like; REQUEST and ACK are added.
    pub(super) flags: i32,
    pub(super) attrs: Attrs,
}

/// A netfilter socket of the network namespace in which it was opened.
pub(super) struct Netfilter {
    socket: Socket,
    sequence: u32,
}

impl Netfilter {
    pub(super) fn open() -> Result<Self, LabError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_WITHIN_S, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| LabError::kernel("open a netfilter socket", error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Commits nf_tables messages as one transaction: all or none.
    pub(super) fn commit(&mut self, messages: &[Message]) -> Result<(), LabError> {
        let mut buffer = Vec::new();
        self.put(&mut buffer, BATCH_BEGIN, 0, 0, SUBSYSTEM_NFTABLES, &Attrs::default());
        let first = self.sequence + 1;
        for message in messages {
            self.put(&mut buffer, message.kind, message.flags | libc::NLM_F_ACK, libc::AF_INET, 0, &message.attrs);
        }
        let last = self.sequence;
        self.put(&mut buffer, BATCH_END, 0, 0, SUBSYSTEM_NFTABLES, &Attrs::default());
        self.send(&buffer, "commit nf_tables rules")?;

        let name = |sequence: u32| {
            let found = sequence.checked_sub(first).and_then(|index| messages.get(usize::try_from(index).ok()?));
            found.map_or("commit nf_tables rules", |message| message.what.as_str()).to_owned()
        };
        let mut missing = messages.len();
        while missing > 0 {
            for (sequence, code) in self.receive("commit nf_tables rules", |_| ())? {
                if code != 0 {
                    return Err(LabError::kernel(name(sequence), io::Error::from_raw_os_error(-code)));
                }
                if (first..=last).contains(&sequence) {
                    missing -= 1;
                }
            }
        }
        Ok(())
    }

    /// Sends one request and waits for its acknowledgement.
    pub(super) fn request(&mut self, message: &Message) -> Result<(), LabError> {
        let mut buffer = Vec::new();
        self.put(&mut buffer, message.kind, message.flags | libc::NLM_F_ACK, libc::AF_INET, 0, &message.attrs);
        self.send(&buffer, &message.what)?;
        loop {
            for (sequence, code) in self.receive(&message.what, |_| ())? {
                if code != 0 {
                    return Err(LabError::kernel(message.what.clone(), io::Error::from_raw_os_error(-code)));
                }
                if sequence == self.sequence {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for a dump and hands each object's attributes to `each`.
    pub(super) fn dump(&mut self, message: &Message, mut each: impl FnMut(&[u8])) -> Result<(), LabError> {
        let mut buffer = Vec::new();
        self.put(&mut buffer, message.kind, message.flags | libc::NLM_F_DUMP, libc::AF_INET, 0, &message.attrs);
        self.send(&buffer, &message.what)?;
        loop {
            if let Some((_, code)) = self.receive(&message.what, &mut each)?.into_iter().next() {
                let error = io::Error::from_raw_os_error(-code);
                return if code == 0 { Ok(()) } else { Err(LabError::kernel(message.what.clone(), error)) };
            }
        }
    }

    fn put(&mut self, buffer: &mut Vec<u8>, kind: u16, flags: i32, family: i32, resource: u16, attrs: &Attrs) {
        self.sequence += 1;
        let length = u32::try_from(HEADER + NETFILTER_HEADER + attrs.0.len()).unwrap_or(u32::MAX);
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&flags.to_ne_bytes());
        buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        buffer.extend_from_slice(&0u32.to_ne_bytes());
        buffer.push(u8::try_from(family).unwrap_or(0));
        buffer.push(0);
        buffer.extend_from_slice(&resource.to_be_bytes());
        buffer.extend_from_slice(&attrs.0);
    }

    fn send(&self, buffer: &[u8], what: &str) -> Result<(), LabError> {
        self.socket.send(buffer, 0).map_err(|error| LabError::kernel(what, error))?;
        Ok(())
    }

    /// Reads one datagram; returns the acknowledgements, errors and ends of dumps in it as (sequence, error code).
    fn receive(&self, what: &str, mut each: impl FnMut(&[u8])) -> Result<Vec<(u32, i32)>, LabError> {
        let failed = |reason: &dyn std::fmt::Display| LabError::kernel(what, reason);
        let (datagram, _) = self.socket.recv_from_full().map_err(|error| failed(&error))?;
        let mut ends = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(|error| failed(&error))?;
            let payload = message.payload();
            match i32::from(message.message_type()) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    ends.push((message.sequence_number(), code));
                }
                libc::NLMSG_NOOP => {}
                _ => each(payload.get(NETFILTER_HEADER..).unwrap_or_default()),
            }
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(ends)
    }
}
