use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sipedge_sip::Time;

/// The clock of a process: the wall clock read once, plus a monotonic clock, so that it never goes back and token ages are right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall_micros: u64,
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        // Before 1970 the clock is wrong anyway; tokens of other instances are then refused for their age, and nothing breaks here.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_micros: u64::try_from(wall.as_micros()).unwrap_or(0), started: Instant::now() }
    }

    /// The moment of the call.
    pub(super) fn now(&self) -> Time {
        Time::from_micros(self.wall_micros) + self.started.elapsed()
    }

    /// The moment of [`Clock::start`], in seconds since the Unix epoch.
    pub(super) fn started_at_secs(&self) -> u64 {
        self.wall_micros / 1_000_000
    }
}
