//! The topologies in an AWS account. Terraform owns the resources; this is how sipedge runs it and reads what it says.

pub mod terraform;
