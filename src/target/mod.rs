//! Where a plan becomes an edge.

pub mod lab;
