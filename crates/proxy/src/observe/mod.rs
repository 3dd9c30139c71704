//! What an operator sees: metrics and logs. Never a log line per message.

mod logs;
mod metrics;

pub use logs::{LogFormat, start_logs};
pub use metrics::{Process, metrics};
