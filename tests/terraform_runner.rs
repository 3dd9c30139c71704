//! Terraform as sipedge runs it.
