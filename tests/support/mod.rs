//! What several test files share.

pub mod loopback;
pub mod plans;
