use super::{Backoff, ClientExpiry, ClientReaction, Delivery, Timers, delivery_of, earlier};
use crate::Time;

/// INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2) with a proxy's Timer C (RFC 3261 §16.8).
#[derive(Debug, Clone)]
pub struct InviteClient {
    state: State,
}

impl InviteClient {
    /// The INVITE has just been sent.
    pub fn new(now: Time, timers: &Timers, delivery: Delivery) -> Self {
        let give_up = now + timers.response.min(timers.lifetime());
        Self { state: State::Calling { resend: delivery.resend(now, timers.t1), give_up, cancel: false } }
    }

    /// A response with this status code has arrived.
    pub fn handle_response(&mut self, now: Time, code: u16, timers: &Timers) -> ClientReaction {
        match (self.state, code) {
            (State::Calling { .. } | State::Proceeding { .. } | State::Cancelling { .. }, 200..=299) => {
                // Timer M: every further 2xx passes until it fires (RFC 6026 §7.2).
                self.state = State::Accepted { until: now + timers.lifetime() };
                ClientReaction::Pass
            }
            (State::Calling { .. } | State::Proceeding { .. } | State::Cancelling { .. }, 300..) => {
                // Timer D: at least 32 s, long enough for all retransmissions of the response.
                self.state = State::Completed { until: self.delivery().wait(now, timers.lifetime()) };
                ClientReaction::Acknowledge { first: true }
            }
            (State::Calling { cancel, .. }, _) => {
                let delivery = self.delivery();
                self.state = State::Proceeding { timer_c: now + timers.invite, cancel, delivery };
                ClientReaction::Pass
            }
            (State::Proceeding { cancel, delivery, .. }, 101..) => {
                // Timer C is reset by each provisional response but 100 (RFC 3261 §16.7 step 2).
                self.state = State::Proceeding { timer_c: now + timers.invite, cancel, delivery };
                ClientReaction::Pass
            }
            (State::Abandoned { until, cancelled, delivery, .. }, 100..=199) => {
                self.state = State::Abandoned { until, cancelled, answers: true, delivery };
                ClientReaction::Pass
            }
            (State::Abandoned { .. }, 200..=299) => {
                // Somebody has answered after all: whoever asked decides what to do with it (RFC 3261 §16.7 step 5).
                self.state = State::Accepted { until: now + timers.lifetime() };
                ClientReaction::Pass
            }
            (State::Abandoned { delivery, .. }, 300..) => {
                self.state = State::Completed { until: delivery.wait(now, timers.lifetime()) };
                ClientReaction::Acknowledge { first: false }
            }
            (State::Accepted { .. }, 200..=299) => ClientReaction::Pass,
            (State::Completed { .. }, 300..) => ClientReaction::Acknowledge { first: false },
            (State::Cancelling { .. }, 101..) => ClientReaction::Pass,
            _ => ClientReaction::Absorb,
        }
    }

    /// The transaction user wants the branch cancelled. Whether the CANCEL may be sent now: a branch that has not answered
    /// provisionally is cancelled when it does (RFC 3261 §9.1); see [`InviteClient::take_cancel`].
    pub fn cancel(&mut self, now: Time, timers: &Timers) -> bool {
        match &mut self.state {
            State::Calling { cancel, .. } => {
                *cancel = true;
                false
            }
            State::Proceeding { delivery, .. } => {
                self.state = State::Cancelling { until: now + timers.lifetime(), delivery: *delivery };
                true
            }
            _ => false,
        }
    }

    /// Whether a CANCEL that had to wait may be sent now. Ask after each provisional response.
    pub fn take_cancel(&mut self, now: Time, timers: &Timers) -> bool {
        if let State::Abandoned { cancelled: cancelled @ false, answers: true, .. } = &mut self.state {
            *cancelled = true;
            return true;
        }
        matches!(self.state, State::Proceeding { cancel: true, .. }) && self.cancel(now, timers)
    }

    /// The transport could not deliver what this transaction has sent last. Whether the transaction user has to be told: it takes it for
    /// a 503 (RFC 3261 §8.1.3.1, §16.9).
    ///
    /// That ends a transaction whose INVITE or ACK is on its way (RFC 3261 Figure 5). Once a response has come the INVITE was delivered:
    /// the loss of a connection is no failure then, since the response may come by another one (§18.2.2), and Timer C is there.
    pub fn handle_failure(&mut self, now: Time) -> bool {
        match self.state {
            State::Calling { .. } => {
                self.state = State::Failed { at: now };
                true
            }
            // The user has been told already: of the silence, or of the response that the ACK is for.
            State::Abandoned { answers: false, .. } | State::Completed { .. } => {
                self.state = State::Failed { at: now };
                false
            }
            _ => false,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time, timers: &Timers) -> ClientExpiry {
        let delivery = self.delivery();
        match &mut self.state {
            State::Calling { give_up, .. } if *give_up <= now => {
                self.state =
                    State::Abandoned { until: now + timers.lifetime(), cancelled: false, answers: false, delivery };
                ClientExpiry::TimedOut
            }
            State::Calling { resend: Some(resend), .. } if resend.at() <= now => {
                resend.next(now, timers.lifetime());
                ClientExpiry::Retransmit
            }
            State::Proceeding { timer_c, .. } if *timer_c <= now => {
                // A peer that is alive answers the CANCEL by a 487 at once; one that does not is given up like a silent one.
                self.state = State::Cancelling { until: now + timers.response, delivery };
                ClientExpiry::Cancel
            }
            State::Cancelling { until, .. } if *until <= now => {
                self.state =
                    State::Abandoned { until: now + timers.lifetime(), cancelled: true, answers: true, delivery };
                ClientExpiry::TimedOut
            }
            State::Accepted { until }
            | State::Completed { until }
            | State::Abandoned { until, .. }
            | State::Failed { at: until }
                if *until <= now =>
            {
                self.state = State::Terminated;
                ClientExpiry::Ended
            }
            State::Terminated => ClientExpiry::Ended,
            _ => ClientExpiry::Wait,
        }
    }

    /// When to call [`InviteClient::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Calling { resend, give_up, .. } => Some(earlier(resend, give_up)),
            State::Proceeding { timer_c, .. } => Some(timer_c),
            State::Cancelling { until, .. }
            | State::Abandoned { until, .. }
            | State::Accepted { until }
            | State::Completed { until }
            | State::Failed { at: until } => Some(until),
            State::Terminated => None,
        }
    }

    /// What the transport is, as long as it matters.
    fn delivery(&self) -> Delivery {
        match self.state {
            State::Calling { resend, .. } => delivery_of(resend),
            State::Proceeding { delivery, .. }
            | State::Cancelling { delivery, .. }
            | State::Abandoned { delivery, .. } => delivery,
            State::Accepted { .. } | State::Completed { .. } | State::Failed { .. } | State::Terminated => {
                Delivery::Reliable
            }
        }
    }

    /// Whether no final response has come yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Calling { .. } | State::Proceeding { .. } | State::Cancelling { .. })
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No response yet. `cancel`: wanted as soon as there is one.
    Calling { resend: Option<Backoff>, give_up: Time, cancel: bool },
    /// A provisional response has come.
    Proceeding { timer_c: Time, cancel: bool, delivery: Delivery },
    /// CANCEL has been sent; the final response is awaited.
    Cancelling { until: Time, delivery: Delivery },
    /// The transaction user has been told that nobody answered, and nobody must be left ringing: the first sign of life is answered
    /// with CANCEL (unless that went out before), a refusal with ACK.
    Abandoned { until: Time, cancelled: bool, answers: bool, delivery: Delivery },
    /// A 2xx has come (RFC 6026); until Timer M.
    Accepted { until: Time },
    /// Another final response has come; until Timer D.
    Completed { until: Time },
    /// What was sent could not be delivered; to be ended at once.
    Failed { at: Time },
    /// Over.
    Terminated,
}
