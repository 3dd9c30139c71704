//! SIP without I/O: messages, URIs, transactions and timers (RFC 3261).
//!
//! Fully deterministic: no networking code, no timestamps from the operating system. Bytes and [`Time`] are arguments.

mod time;

pub use time::Time;
