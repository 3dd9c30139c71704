//! The appliance: a transaction-stateful SIP proxy that stands between carriers, phones and PBXes on cloud addresses.
//!
//! `engine` decides and does no I/O; `net` moves datagrams; `boot` turns instance metadata into a running, tried instance.

pub mod admin;
pub mod answerer;
pub mod boot;
pub mod cloud;
pub mod config;
#[deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice
)]
pub mod engine;
pub mod net;
pub mod observe;
pub mod secrets;
