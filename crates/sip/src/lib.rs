//! SIP without I/O: messages, URIs, transactions and timers (RFC 3261).
//!
//! Fully deterministic: no networking code, no timestamps from the operating system. Bytes and [`Time`] are arguments, and nothing
//! here can panic on them.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)] // no I/O, no clock
#![deny(clippy::indexing_slicing, clippy::expect_used, clippy::panic, clippy::string_slice)] // nothing panics on bytes

pub mod digest;
pub mod framing;
pub mod message;
mod scan;
mod span;
pub mod stun;
mod time;
pub mod transaction;
pub mod uri;
pub mod via;
mod wheel;

pub use span::Span;
pub use time::Time;
pub use wheel::TimerWheel;
