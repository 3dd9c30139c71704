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
