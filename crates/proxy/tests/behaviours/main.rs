//! How the running proxy behaves: one file per behaviour, named for it. They are one binary, since linking is slow; they run in parallel,
//! each with processes and addresses of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod message;
mod peer;
#[path = "../process/mod.rs"]
mod process;
mod stage;

mod ack_lost;
mod ack_with_wrong_branch;
mod best_response;
mod bye_before_ack;
mod challenges_merged;
mod early_dialog_update;
mod failover;
mod forked_call_answered_twice;
mod late_final_after_timer_c;
mod loop_detected;
mod max_breadth;
mod methods_in_dialog;
mod ok_and_cancel_cross;
mod ok_retransmitted;
mod provisionals_from_two_branches;
mod reinvite_glare;
mod spiral;
mod stateless_cancel;
