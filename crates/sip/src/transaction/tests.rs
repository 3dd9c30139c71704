use std::time::Duration;

use super::*;

const T: Timers = Timers {
    t1: Duration::from_millis(500),
    t2: Duration::from_secs(4),
    t4: Duration::from_secs(5),
    response: Duration::from_secs(5),
    invite: Duration::from_secs(30),
};

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1_000)
}

/// Milliseconds at which `poll` has something to do until it ends, with what it does.
fn script<E: PartialEq + Copy>(mut poll: impl FnMut(Option<Time>) -> (Option<Time>, Option<E>)) -> Vec<(u64, E)> {
    let mut done = Vec::new();
    let (mut next, _) = poll(None);
    while let Some(now) = next {
        let (following, expiry) = poll(Some(now));
        done.extend(expiry.map(|expiry| (now.as_millis(), expiry)));
        next = following;
    }
    done
}

#[test]
fn an_invite_is_sent_again_at_doubling_intervals_until_the_response_timer() {
    let mut machine = InviteClient::new(at(0), &T);
    let times = script(|now| {
        let expiry = now.map(|now| machine.handle_timeout(now, &T));
        (machine.poll_timeout(), expiry)
    });
    use ClientExpiry::{Ended, Retransmit, TimedOut};
    let expected = [(500, Retransmit), (1_500, Retransmit), (3_500, Retransmit), (5_000, TimedOut), (37_000, Ended)];
    assert_eq!(times, expected);
}

#[test]
fn whoever_answers_too_late_is_not_left_ringing() {
    let mut machine = InviteClient::new(at(0), &T);
    assert_eq!(machine.handle_timeout(at(5_000), &T), ClientExpiry::TimedOut);
    assert!(!machine.is_pending());
    assert_eq!(machine.handle_response(at(6_000), 180, &T), ClientReaction::Pass);
    assert!(machine.take_cancel(at(6_000), &T));
    assert!(!machine.take_cancel(at(6_000), &T));
    assert_eq!(machine.handle_response(at(6_100), 487, &T), ClientReaction::Acknowledge { first: false });
}

#[test]
fn timer_c_cancels_and_then_gives_up() {
    let mut machine = InviteClient::new(at(0), &T);
    assert_eq!(machine.handle_response(at(10), 100, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(1_000), 180, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(2_000), 100, &T), ClientReaction::Absorb);
    assert_eq!(machine.poll_timeout(), Some(at(31_000)));
    assert_eq!(machine.handle_timeout(at(31_000), &T), ClientExpiry::Cancel);
    assert_eq!(machine.handle_timeout(at(36_000), &T), ClientExpiry::TimedOut);
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut machine = InviteClient::new(at(0), &T);
    assert!(!machine.cancel(at(5), &T));
    assert!(!machine.take_cancel(at(5), &T));
    machine.handle_response(at(10), 180, &T);
    assert!(machine.take_cancel(at(10), &T));
    assert!(!machine.take_cancel(at(11), &T));
    // 200 and CANCEL crossed: the call is answered.
    assert_eq!(machine.handle_response(at(12), 200, &T), ClientReaction::Pass);
}

#[test]
fn every_2xx_passes_and_other_finals_are_acknowledged_again() {
    let mut machine = InviteClient::new(at(0), &T);
    assert_eq!(machine.handle_response(at(1), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(2), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(3), 486, &T), ClientReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(32_001), &T), ClientExpiry::Ended);

    let mut machine = InviteClient::new(at(0), &T);
    assert_eq!(machine.handle_response(at(1), 486, &T), ClientReaction::Acknowledge { first: true });
    assert_eq!(machine.handle_response(at(2), 486, &T), ClientReaction::Acknowledge { first: false });
    assert_eq!(machine.handle_response(at(3), 200, &T), ClientReaction::Absorb);
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut machine = InviteServer::new();
    assert_eq!(machine.handle_request(), ServerReaction::Repeat);
    assert!(machine.handle_response(at(0), 486, &T));
    assert!(!machine.handle_response(at(0), 200, &T));
    assert_eq!(machine.poll_timeout(), Some(at(500)));
    assert_eq!(machine.handle_timeout(at(500), &T), ServerExpiry::Repeat);
    assert_eq!(machine.poll_timeout(), Some(at(1_500)));
    assert!(machine.handle_ack(at(600), &T));
    assert!(machine.handle_ack(at(601), &T));
    assert_eq!(machine.handle_request(), ServerReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(5_600), &T), ServerExpiry::Ended);
}

#[test]
fn a_refusal_without_ack_ends_with_timer_h() {
    let mut machine = InviteServer::new();
    machine.handle_response(at(0), 404, &T);
    let times = script(|now| {
        let expiry = now.map(|now| machine.handle_timeout(now, &T));
        (machine.poll_timeout(), expiry)
    });
    let (last, repeats) = times.split_last().unwrap();
    assert_eq!(*last, (32_000, ServerExpiry::Ended));
    let at: Vec<u64> = repeats.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
}

#[test]
fn an_accepted_invite_absorbs_and_passes_further_2xx() {
    let mut machine = InviteServer::new();
    assert!(machine.handle_response(at(0), 200, &T));
    assert!(machine.handle_response(at(0), 200, &T));
    assert!(!machine.handle_response(at(0), 486, &T));
    assert_eq!(machine.handle_request(), ServerReaction::Absorb);
    assert!(!machine.handle_ack(at(1), &T));
    assert_eq!(machine.handle_timeout(at(32_000), &T), ServerExpiry::Ended);
}

#[test]
fn a_non_invite_request_is_sent_again_up_to_t2() {
    let mut machine = NonInviteClient::new(at(0), &T);
    let times = script(|now| {
        let expiry = now.map(|now| machine.handle_timeout(now, &T));
        (machine.poll_timeout(), expiry)
    });
    let at: Vec<u64> = times.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500, 32_000]);
    assert_eq!(times.last().unwrap().1, ClientExpiry::TimedOut);
}

#[test]
fn a_non_invite_response_is_passed_once() {
    let mut machine = NonInviteClient::new(at(0), &T);
    assert_eq!(machine.handle_response(at(100), 100, &T), ClientReaction::Pass);
    machine.handle_timeout(at(500), &T);
    assert_eq!(machine.poll_timeout(), Some(at(4_500)));
    assert_eq!(machine.handle_response(at(600), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(700), 200, &T), ClientReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(5_600), &T), ClientExpiry::Ended);
}

#[test]
fn no_100_to_a_non_invite_request_before_timer_e_is_t2() {
    let mut machine = NonInviteServer::new(at(0), &T);
    assert_eq!(machine.handle_request(), ServerReaction::Absorb);
    assert_eq!(machine.poll_timeout(), Some(at(3_500)));
    assert!(!machine.handle_response(at(1), 180, &T));
    assert_eq!(machine.handle_timeout(at(3_500)), ServerExpiry::Trying);
    assert_eq!(machine.handle_request(), ServerReaction::Repeat);
    assert!(machine.handle_response(at(4_000), 200, &T));
    assert!(!machine.handle_response(at(4_000), 200, &T));
    assert_eq!(machine.handle_timeout(at(36_000)), ServerExpiry::Ended);
}
