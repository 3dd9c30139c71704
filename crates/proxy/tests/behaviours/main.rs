//! How the running proxy behaves: one file per behaviour, named for it. They are one binary, since linking is slow; they run in parallel,
//! each with processes and addresses of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod message;
mod peer;
#[path = "../process/mod.rs"]
mod process;
mod stage;

mod forked_call_answered_twice;
