//! Where a plan becomes an edge.

pub mod aws;
pub mod lab;
