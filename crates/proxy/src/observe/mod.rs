//! What an operator sees: metrics, logs, and captures of messages. Never a log line per message.

mod logs;
mod mask;
mod metrics;
pub mod pcapng;

pub use logs::{LogFormat, start_logs};
pub use mask::mask;
pub use metrics::{Process, metrics};
