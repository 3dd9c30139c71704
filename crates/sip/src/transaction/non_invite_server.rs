use super::{Delivery, ServerExpiry, ServerReaction, Timers};
use crate::Time;

/// Non-INVITE server transaction (RFC 3261 §17.2.2, RFC 4320).
#[derive(Debug, Clone)]
pub struct NonInviteServer {
    state: State,
}

impl NonInviteServer {
    /// The request has just arrived.
    ///
    /// 100 is due at the same time over every transport: over a reliable one it may be sent before, and has to be sent then (RFC 4320
    /// §4.1).
    pub fn new(now: Time, timers: &Timers, delivery: Delivery) -> Self {
        let trying = now + time_to_t2(timers);
        Self { state: State::Trying { trying, until: now + timers.lifetime(), delivery } }
    }

    /// The request has arrived again.
    pub fn handle_request(&mut self) -> ServerReaction {
        match self.state {
            State::Trying { .. } | State::Terminated => ServerReaction::Absorb,
            State::Proceeding { .. } | State::Completed { .. } => ServerReaction::Repeat,
        }
    }

    /// The transaction user sends a response. Whether it may go out: final ones once; provisional ones never come from the user, since
    /// RFC 4320 §4.1 allows none but our own 100.
    pub fn handle_response(&mut self, now: Time, code: u16, timers: &Timers) -> bool {
        match (self.state, code) {
            (State::Trying { delivery, .. } | State::Proceeding { delivery, .. }, 200..) => {
                // Timer J.
                self.state = State::Completed { until: delivery.wait(now, timers.lifetime()) };
                true
            }
            _ => false,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) -> ServerExpiry {
        match self.state {
            State::Trying { until, .. } | State::Proceeding { until, .. } | State::Completed { until }
                if until <= now =>
            {
                // Without a final response the sender has given up too (Timer F): no 408 (RFC 4320 §4.2).
                self.state = State::Terminated;
                ServerExpiry::Ended
            }
            State::Trying { trying, until, delivery } if trying <= now => {
                self.state = State::Proceeding { until, delivery };
                ServerExpiry::Trying
            }
            State::Terminated => ServerExpiry::Ended,
            _ => ServerExpiry::Wait,
        }
    }

    /// When to call [`NonInviteServer::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Trying { trying, until, .. } => Some(trying.min(until)),
            State::Proceeding { until, .. } | State::Completed { until } => Some(until),
            State::Terminated => None,
        }
    }

    /// Whether no final response has been sent yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Trying { .. } | State::Proceeding { .. })
    }
}

/// How long a sender's Timer E takes to be reset to T2: T1 + 2 T1 + 4 T1 … while the next interval is below T2.
fn time_to_t2(timers: &Timers) -> std::time::Duration {
    let mut interval = timers.t1;
    let mut passed = interval;
    while !interval.is_zero() && interval.saturating_mul(2) < timers.t2 {
        interval = interval.saturating_mul(2);
        passed = passed.saturating_add(interval);
    }
    passed
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No response yet.
    Trying { trying: Time, until: Time, delivery: Delivery },
    /// 100 has been sent.
    Proceeding { until: Time, delivery: Delivery },
    /// The final response has been sent; until Timer J.
    Completed { until: Time },
    /// Over.
    Terminated,
}
