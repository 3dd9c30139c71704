use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{Counters, Gauges};

/// What an instance counts, summed over its shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The engines' counts since the start.
    pub counters: Counters,
    /// What the engines' tables hold.
    pub gauges: Gauges,
    /// The sockets' counts since the start.
    pub net: NetCounters,
    /// What the connections count since the start.
    pub streams: StreamCounters,
    /// What there is of connections now.
    pub stream_gauges: StreamGauges,
    /// Receive buffers that the kernel granted to all sockets together, in bytes.
    pub receive_buffer_bytes: u64,
    /// Shards.
    pub shards: u64,
}

impl Numbers {
    pub(super) fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.gauges.add(&other.gauges);
        self.net.add(&other.net);
        self.receive_buffer_bytes += other.receive_buffer_bytes;
        self.shards += other.shards;
    }
}

/// What the sockets count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Datagrams given to the kernel.
    pub datagrams_sent: u64,
    /// Datagrams that the kernel refused to send.
    pub send_errors: u64,
    /// Datagrams dropped since the send buffer and the queue behind it were full.
    pub send_queue_drops: u64,
    /// Datagrams that did not fit the receive buffer, or had no source address.
    pub datagrams_truncated: u64,
    /// Errors of the receiving system call.
    pub receive_errors: u64,
    /// Datagrams that the kernel dropped before they were received.
    pub kernel_drops: u64,
    /// Datagrams handed over to the shard that owns their call.
    pub handed_over: u64,
    /// Datagrams dropped since the owning shard's inbox was full.
    pub hand_over_drops: u64,
}

impl NetCounters {
    /// Name, help text and value of each, for `/metrics`.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("datagrams_sent", "Datagrams given to the kernel.", self.datagrams_sent),
            ("send_errors", "Datagrams that the kernel refused to send.", self.send_errors),
            (
                "send_queue_drops",
                "Datagrams dropped since the send buffer and the queue behind it were full.",
                self.send_queue_drops,
            ),
            (
                "datagrams_truncated",
                "Datagrams that did not fit the receive buffer, or had no source address.",
                self.datagrams_truncated,
            ),
            ("receive_errors", "Errors of the receiving system call.", self.receive_errors),
            ("kernel_drops", "Datagrams that the kernel dropped before they were received.", self.kernel_drops),
            ("handed_over", "Datagrams handed over to the shard that owns their call.", self.handed_over),
            ("hand_over_drops", "Datagrams dropped since the owning shard's inbox was full.", self.hand_over_drops),
        ]
        .into_iter()
    }

    fn add(&mut self, other: &Self) {
        self.datagrams_sent += other.datagrams_sent;
        self.send_errors += other.send_errors;
        self.send_queue_drops += other.send_queue_drops;
        self.datagrams_truncated += other.datagrams_truncated;
        self.receive_errors += other.receive_errors;
        self.kernel_drops += other.kernel_drops;
        self.handed_over += other.handed_over;
        self.hand_over_drops += other.hand_over_drops;
    }
}

macro_rules! stream_counters {
    ($($(#[doc = $help:literal])+ $field:ident,)+) => {
        /// What the connections of TCP and TLS count.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct StreamCounters {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl StreamCounters {
            /// Name, help text and value of each, for `/metrics`.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($help),+), self.$field)),+].into_iter()
            }
        }

        /// The same where it is counted, and the connections that stand.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $field: AtomicU64,)+
            pub(super) connections_in: AtomicU64,
            pub(super) connections_out: AtomicU64,
        }

        impl Tally {
            pub(super) fn counters(&self) -> StreamCounters {
                StreamCounters { $($field: self.$field.load(Ordering::Relaxed)),+ }
            }
        }
    };
}

stream_counters! {
    /// Connections accepted.
    accepted,
    /// Connections opened.
    opened,
    /// Connections that could not be opened: refused, no answer in time, TLS not agreed.
    open_failures,
    /// Connections refused or not opened because there are as many as there may be.
    refused_limit,
    /// Connections refused because their source has its share, or is unknown.
    refused_source,
    /// TLS handshakes of accepted connections that failed or took too long.
    handshake_failures,
    /// Connections closed because what came on them could not be cut into messages.
    framing_errors,
    /// Connections closed because a message that had begun was not there in time.
    slow_senders,
    /// Connections closed because the peer took nothing.
    slow_receivers,
    /// Connections closed because nothing came or went on them.
    idle_closed,
    /// Connections that broke.
    broken,
    /// Messages received over connections.
    messages_received,
    /// Messages and keep-alives written to connections.
    messages_sent,
    /// Times that reading from a connection waited for a shard whose inbox was full.
    held_back,
    /// Responses not sent because the connection of their request was gone, and no other may be opened for them.
    not_returned,
    /// Messages not sent because too much waited already.
    no_room,
    /// Messages reported to their shard as not delivered.
    failures_reported,
}

impl Tally {
    pub(super) fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What there is of connections now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamGauges {
    /// Connections that peers have opened.
    pub connections_in: u64,
    /// Connections that the edge has opened or is opening.
    pub connections_out: u64,
    /// Bytes that wait to be written to connections, with their bookkeeping.
    pub bytes_waiting: u64,
}

impl StreamGauges {
    /// Name, help text and value of each, for `/metrics`.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("connections_in", "Connections that peers have opened.", self.connections_in),
            ("connections_out", "Connections that the edge has opened or is opening.", self.connections_out),
            (
                "bytes_waiting",
                "Bytes that wait to be written to connections, with their bookkeeping.",
                self.bytes_waiting,
            ),
        ]
        .into_iter()
    }
}
