//! w
pub mod agent;
pub mod trace;
