//! Counts and fill levels. Plain integers: an engine counts for itself, the driver publishes copies.

macro_rules! numbers {
    ($(#[$outer:meta])* $name:ident { $($(#[doc = $help:literal])+ $field:ident,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl $name {
            /// Name, help text and value of each, for `/metrics`.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), concat!($($help),+), self.$field)),+].into_iter()
            }

            /// Adds another shard's numbers.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)+
            }
        }
    };
}

numbers! {
    /// What has happened since the start.
    Counters {
        /// Messages received, over all transports.
        messages_received,
        /// Messages sent, over all transports.
        messages_sent,
        /// Datagrams that are no SIP: empty, keep-alives, anything else.
        not_sip,
        /// STUN Binding requests answered.
        stun_answered,
        /// SIP messages with a broken frame or without a header that every message has.
        malformed,
        /// Datagrams dropped because the instance has not yet called itself.
        dropped_closed,
        /// Requests refused because of their source address.
        refused_source,
        /// Requests of strangers dropped because their User-Agent is that of a known scanner.
        dropped_scanner,
        /// Requests of strangers not answered because their source had too many refused.
        dropped_offender,
        /// Requests of strangers not answered because strangers have had all the answers that they get in a second.
        dropped_strangers,
        /// Requests in a dialog from sources that are nobody's dropped because there were too many in a second.
        dropped_in_dialog,
        /// Requests of strangers to the answerer that were challenged.
        answerer_challenged,
        /// Those of them that had credentials which prove nothing: a wrong password, another source's nonce, a broken header.
        answerer_refused,
        /// Calls to the answerer by those who know its password.
        answerer_calls,
        /// Requests in a dialog refused because their route does not carry a token of this edge and of this call.
        refused_token,
        /// Calls refused because a trunk's calls per second are used up.
        refused_cps,
        /// Calls refused because a trunk's concurrent calls are used up.
        refused_calls,
        /// Requests refused because a table of this instance is full.
        refused_budget,
        /// Calls refused because a shard was behind with what had arrived.
        refused_behind,
        /// Calls refused because this instance is leaving.
        refused_draining,
        /// Requests refused with 483, Max-Forwards being 0.
        refused_max_forwards,
        /// Requests refused with 405.
        refused_method,
        /// Requests refused with 482: they have been here before, and would take the same way again.
        loops,
        /// Other requests refused with a final response of our own.
        refused_other,
        /// Calls refused because the destination has no known address.
        unresolved_destination,
        /// INVITEs sent on to open a call.
        calls_started,
        /// Calls that were answered.
        calls_answered,
        /// Calls that ended before an answer, by a response of the called side, a CANCEL or a timer.
        calls_failed,
        /// CANCELs sent on.
        cancels_forwarded,
        /// Requests sent on within dialogs, ACK not counted.
        requests_in_dialog,
        /// Requests sent on outside dialogs that open no call.
        requests_outside,
        /// Branches opened because another destination had failed.
        failovers,
        /// Messages that a stream could not deliver.
        transport_failures,
        /// ACKs of answered calls sent on.
        acks_forwarded,
        /// Responses sent on.
        responses_forwarded,
        /// OPTIONS to the edge answered.
        options_answered,
        /// Retransmitted requests absorbed.
        retransmissions_absorbed,
        /// Requests and responses sent again because no answer came.
        retransmissions_sent,
        /// Requests that no response came to in time.
        timeouts,
        /// Responses dropped: their topmost Via is not ours, or no transaction waits for them.
        stray_responses,
        /// ACKs dropped: no transaction and no route for them.
        stray_acks,
        /// OPTIONS sent to destinations to see whether they are there.
        probes_sent,
        /// Those of them that were not answered in time, or with a code that counts as failure.
        probes_failed,
    }
}

numbers! {
    /// What the tables hold.
    Gauges {
        /// Server and client transactions.
        transactions,
        /// Those of them that wait for a final response.
        pending_transactions,
        /// Bytes of messages kept for retransmission.
        message_bytes,
        /// Calls that limits count.
        counted_calls,
        /// Destinations that get new calls.
        destinations_up,
        /// Destinations that get no new calls since their probes fail.
        destinations_down,
        /// Destinations that get new calls only when there is no other: they were silent, or have asked for it.
        destinations_avoided,
        /// Destinations that the operator has marked down or draining.
        destinations_marked,
    }
}
