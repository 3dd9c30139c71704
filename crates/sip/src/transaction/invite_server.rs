use super::{Backoff, Delivery, ServerExpiry, ServerReaction, Timers, delivery_of, earlier};
use crate::Time;

/// INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1).
#[derive(Debug, Clone)]
pub struct InviteServer {
    state: State,
}

impl InviteServer {
    /// The INVITE has just arrived.
    pub fn new(delivery: Delivery) -> Self {
        Self { state: State::Proceeding { delivery } }
    }

    /// The INVITE has arrived again.
    pub fn handle_request(&mut self) -> ServerReaction {
        match self.state {
            State::Proceeding { .. } | State::Completed { .. } => ServerReaction::Repeat,
            // RFC 6026 §7.1: absorbed, since the 2xx is retransmitted by the UAS core.
            State::Accepted { .. } | State::Confirmed { .. } | State::Terminated => ServerReaction::Absorb,
        }
    }

    /// An ACK with the INVITE's branch has arrived. Whether it ends here: it does, unless the final response was a 2xx.
    pub fn handle_ack(&mut self, now: Time, timers: &Timers) -> bool {
        match self.state {
            State::Completed { repeat, .. } => {
                // Timer I absorbs further ACKs.
                self.state = State::Confirmed { until: delivery_of(repeat).wait(now, timers.t4) };
                true
            }
            State::Accepted { .. } => false,
            _ => true,
        }
    }

    /// The transaction user sends a response. Whether it may go out: after a final response only a 2xx does.
    pub fn handle_response(&mut self, now: Time, code: u16, timers: &Timers) -> bool {
        match (self.state, code) {
            (State::Proceeding { .. }, 100..=199) => true,
            (State::Proceeding { .. }, 200..=299) => {
                self.state = State::Accepted { until: now + timers.lifetime() };
                true
            }
            (State::Proceeding { delivery }, _) => {
                let repeat = delivery.resend(now, timers.t1);
                self.state = State::Completed { repeat, until: now + timers.lifetime() };
                true
            }
            // A 2xx passes even after a refusal: the call is up on the other side (RFC 3261 §16.7 step 5).
            (State::Accepted { .. } | State::Completed { .. } | State::Confirmed { .. }, 200..=299) => true,
            _ => false,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, timers: &Timers) -> ServerExpiry {
        match &mut self.state {
            State::Accepted { until } | State::Confirmed { until } | State::Completed { until, .. }
                if *until <= now =>
            {
                self.state = State::Terminated;
                ServerExpiry::Ended
            }
            State::Completed { repeat: Some(repeat), .. } if repeat.at() <= now => {
                repeat.next(now, timers.t2);
                ServerExpiry::Repeat
            }
            State::Terminated => ServerExpiry::Ended,
            _ => ServerExpiry::Wait,
        }
    }

    /// When to call [`InviteServer::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Proceeding { .. } | State::Terminated => None,
            State::Completed { repeat, until } => Some(earlier(repeat, until)),
            State::Accepted { until } | State::Confirmed { until } => Some(until),
        }
    }

    /// Whether no final response has been sent yet.
    pub fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// Whether the last response may have to be sent again.
    pub fn may_repeat(&self) -> bool {
        matches!(self.state, State::Proceeding { .. } | State::Completed { .. })
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No final response yet.
    Proceeding { delivery: Delivery },
    /// A 2xx has been sent (RFC 6026); until Timer L.
    Accepted { until: Time },
    /// Another final response has been sent: Timer G repeats it, Timer H ends the wait for the ACK.
    Completed { repeat: Option<Backoff>, until: Time },
    /// The ACK has come; until Timer I.
    Confirmed { until: Time },
    /// Over.
    Terminated,
}
