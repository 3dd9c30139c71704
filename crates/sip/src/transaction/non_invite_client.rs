use super::{Backoff, ClientExpiry, ClientReaction, Delivery, Timers, delivery_of, earlier};
use crate::Time;

/// Non-INVITE client transaction (RFC 3261 §17.1.2).
#[derive(Debug, Clone)]
pub struct NonInviteClient {
    state: State,
}

impl NonInviteClient {
    /// The request has just been sent.
    pub fn new(now: Time, timers: &Timers, delivery: Delivery) -> Self {
        let resend = delivery.resend(now, timers.t1);
        Self { state: State::Trying { resend, give_up: now + timers.lifetime(), proceeding: false } }
    }

    /// A response with this status code has arrived.
    pub fn handle_response(&mut self, now: Time, code: u16, timers: &Timers) -> ClientReaction {
        match (&mut self.state, code) {
            (State::Trying { proceeding, .. }, 100..=199) => {
                *proceeding = true;
                ClientReaction::Pass
            }
            (State::Trying { resend, .. }, _) => {
                // Timer K absorbs retransmissions of the response.
                self.state = State::Completed { until: delivery_of(*resend).wait(now, timers.t4) };
                ClientReaction::Pass
            }
            _ => ClientReaction::Absorb,
        }
    }

    /// The transport could not deliver the request. Whether the transaction user has to be told: it takes it for a 503 (RFC 3261
    /// §8.1.3.1, §16.9). After a final response there is nothing more to deliver, and nothing changes.
    pub fn handle_failure(&mut self, now: Time) -> bool {
        let fails = self.is_pending();
        if fails {
            self.state = State::Failed { at: now };
        }
        fails
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, timers: &Timers) -> ClientExpiry {
        match &mut self.state {
            State::Trying { give_up, .. } if *give_up <= now => {
                self.state = State::Terminated;
                ClientExpiry::TimedOut
            }
            State::Trying { resend: Some(resend), proceeding, .. } if resend.at() <= now => {
                // Timer E doubles up to T2; after a provisional response it is T2 (§17.1.2.2).
                if *proceeding {
                    *resend = Backoff::new(now, timers.t2);
                } else {
                    resend.next(now, timers.t2);
                }
                ClientExpiry::Retransmit
            }
            State::Completed { until } | State::Failed { at: until } if *until <= now => {
                self.state = State::Terminated;
                ClientExpiry::Ended
            }
            State::Terminated => ClientExpiry::Ended,
            _ => ClientExpiry::Wait,
        }
    }

    /// When to call [`NonInviteClient::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Trying { resend, give_up, .. } => Some(earlier(resend, give_up)),
            State::Completed { until } | State::Failed { at: until } => Some(until),
            State::Terminated => None,
        }
    }

    /// Whether no final response has come yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Trying { .. })
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No final response yet: Timers E and F. `proceeding`: a provisional one has come.
    Trying { resend: Option<Backoff>, give_up: Time, proceeding: bool },
    /// The final response has come; until Timer K.
    Completed { until: Time },
    /// The request could not be delivered; to be ended at once.
    Failed { at: Time },
    /// Over.
    Terminated,
}
