//! sipedge: one YAML spec to a running, verified SIP edge.
//!
//! The way of the data is file → [`spec`] → [`plan`] → [`target`] → [`verify`] report; each arrow is a function that a test can call.

pub mod capacity;
pub mod deploy;
pub mod doctor;
mod files;
pub mod image;
pub mod interrupt;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // the same spec gives the same plan
pub mod plan;
pub mod spec;
pub mod target;
pub mod verify;
