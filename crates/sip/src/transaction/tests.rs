use std::time::Duration;

use proptest::prelude::*;

use super::Delivery::{Reliable, Unreliable};
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
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
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
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_timeout(at(5_000), &T), ClientExpiry::TimedOut);
    assert!(!machine.is_pending());
    assert_eq!(machine.handle_response(at(6_000), 180, &T), ClientReaction::Pass);
    assert!(machine.take_cancel(at(6_000), &T));
    assert!(!machine.take_cancel(at(6_000), &T));
    assert_eq!(machine.handle_response(at(6_100), 487, &T), ClientReaction::Acknowledge { first: false });
}

#[test]
fn timer_c_cancels_and_then_gives_up() {
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_response(at(10), 100, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(1_000), 180, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(2_000), 100, &T), ClientReaction::Absorb);
    assert_eq!(machine.poll_timeout(), Some(at(31_000)));
    assert_eq!(machine.handle_timeout(at(31_000), &T), ClientExpiry::Cancel);
    assert_eq!(machine.handle_timeout(at(36_000), &T), ClientExpiry::TimedOut);
}

#[test]
fn a_refusal_that_comes_too_late_is_acknowledged_for_as_long_as_it_may_be_repeated() {
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_timeout(at(5_000), &T), ClientExpiry::TimedOut);
    assert_eq!(machine.handle_response(at(36_900), 487, &T), ClientReaction::Acknowledge { first: false });
    // Timer D counts from the refusal.
    assert_eq!(machine.handle_response(at(68_800), 487, &T), ClientReaction::Acknowledge { first: false });
    assert_eq!(machine.poll_timeout(), Some(at(68_900)));
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
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
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_response(at(1), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(2), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(3), 486, &T), ClientReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(32_001), &T), ClientExpiry::Ended);

    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_response(at(1), 486, &T), ClientReaction::Acknowledge { first: true });
    assert_eq!(machine.handle_response(at(2), 486, &T), ClientReaction::Acknowledge { first: false });
    assert_eq!(machine.handle_response(at(3), 200, &T), ClientReaction::Absorb);
}

#[test]
fn timer_d_is_32_seconds_at_least_and_nothing_over_tcp() {
    let refused = |delivery| {
        let mut machine = InviteClient::new(at(0), &T, delivery);
        assert_eq!(machine.handle_response(at(1_000), 486, &T), ClientReaction::Acknowledge { first: true });
        let due = machine.poll_timeout().unwrap();
        assert_eq!(machine.handle_timeout(due, &T), ClientExpiry::Ended);
        due
    };
    assert!(refused(Unreliable) >= at(33_000), "{:?}", refused(Unreliable));
    assert_eq!(refused(Reliable), at(1_000));
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut machine = InviteServer::new(Unreliable);
    assert_eq!(machine.handle_request(), ServerReaction::Repeat);
    assert!(machine.handle_response(at(0), 486, &T));
    assert!(machine.handle_response(at(0), 200, &T), "somebody has answered after all");
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
    let mut machine = InviteServer::new(Unreliable);
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
    let mut machine = InviteServer::new(Unreliable);
    assert!(machine.handle_response(at(0), 200, &T));
    assert!(machine.handle_response(at(0), 200, &T));
    assert!(!machine.handle_response(at(0), 486, &T));
    assert_eq!(machine.handle_request(), ServerReaction::Absorb);
    assert!(!machine.handle_ack(at(1), &T));
    assert_eq!(machine.handle_timeout(at(32_000), &T), ServerExpiry::Ended);
}

#[test]
fn a_non_invite_request_is_sent_again_up_to_t2() {
    let mut machine = NonInviteClient::new(at(0), &T, Unreliable);
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
    let mut machine = NonInviteClient::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_response(at(100), 100, &T), ClientReaction::Pass);
    machine.handle_timeout(at(500), &T);
    assert_eq!(machine.poll_timeout(), Some(at(4_500)));
    assert_eq!(machine.handle_response(at(600), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(700), 200, &T), ClientReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(5_600), &T), ClientExpiry::Ended);
}

#[test]
fn timer_f_ends_a_non_invite_request_that_was_answered_provisionally() {
    for delivery in [Unreliable, Reliable] {
        let mut machine = NonInviteClient::new(at(0), &T, delivery);
        assert_eq!(machine.handle_response(at(100), 100, &T), ClientReaction::Pass);
        let times = script(|now| {
            let expiry = now.map(|now| machine.handle_timeout(now, &T));
            (machine.poll_timeout(), expiry)
        });
        assert_eq!(times.last(), Some(&(32_000, ClientExpiry::TimedOut)));
    }
}

#[test]
fn no_100_to_a_non_invite_request_before_timer_e_is_t2() {
    let mut machine = NonInviteServer::new(at(0), &T, Unreliable);
    assert_eq!(machine.handle_request(), ServerReaction::Absorb);
    assert_eq!(machine.poll_timeout(), Some(at(3_500)));
    assert!(!machine.handle_response(at(1), 180, &T));
    assert_eq!(machine.handle_timeout(at(3_500)), ServerExpiry::Trying);
    assert_eq!(machine.handle_request(), ServerReaction::Repeat);
    assert!(machine.handle_response(at(4_000), 200, &T));
    assert!(!machine.handle_response(at(4_000), 200, &T));
    assert_eq!(machine.handle_timeout(at(36_000)), ServerExpiry::Ended);
}

#[test]
fn over_a_reliable_transport_an_invite_is_sent_once() {
    let mut machine = InviteClient::new(at(0), &T, Reliable);
    let times = script(|now| {
        let expiry = now.map(|now| machine.handle_timeout(now, &T));
        (machine.poll_timeout(), expiry)
    });
    assert_eq!(times, [(5_000, ClientExpiry::TimedOut), (37_000, ClientExpiry::Ended)]);
}

#[test]
fn over_a_reliable_transport_a_refused_invite_is_over_with_its_ack() {
    let mut machine = InviteClient::new(at(0), &T, Reliable);
    assert_eq!(machine.handle_response(at(10), 180, &T), ClientReaction::Pass);
    assert_eq!(machine.handle_response(at(20), 486, &T), ClientReaction::Acknowledge { first: true });
    assert!(!machine.is_pending());
    assert_eq!(machine.poll_timeout(), Some(at(20)));
    assert_eq!(machine.handle_timeout(at(20), &T), ClientExpiry::Ended);
    assert_eq!(machine.poll_timeout(), None);

    // Timer M stays: a 2xx of another branch further on may follow.
    let mut machine = InviteClient::new(at(0), &T, Reliable);
    assert_eq!(machine.handle_response(at(20), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.poll_timeout(), Some(at(32_020)));
    assert_eq!(machine.handle_response(at(30), 200, &T), ClientReaction::Pass);

    // Refused after the user has given it up: acknowledged, and over.
    let mut machine = InviteClient::new(at(0), &T, Reliable);
    assert_eq!(machine.handle_timeout(at(5_000), &T), ClientExpiry::TimedOut);
    assert_eq!(machine.handle_response(at(6_000), 503, &T), ClientReaction::Acknowledge { first: false });
    assert_eq!(machine.poll_timeout(), Some(at(6_000)));
    assert_eq!(machine.handle_timeout(at(6_000), &T), ClientExpiry::Ended);
}

#[test]
fn over_a_reliable_transport_a_refusal_is_sent_once_and_over_with_its_ack() {
    let mut machine = InviteServer::new(Reliable);
    assert!(machine.handle_response(at(0), 486, &T));
    // Timer H stays.
    assert_eq!(machine.poll_timeout(), Some(at(32_000)));
    assert_eq!(machine.handle_timeout(at(31_999), &T), ServerExpiry::Wait);
    assert!(machine.handle_ack(at(100), &T));
    assert_eq!(machine.poll_timeout(), Some(at(100)));
    assert_eq!(machine.handle_timeout(at(100), &T), ServerExpiry::Ended);
    assert_eq!(machine.poll_timeout(), None);

    let mut machine = InviteServer::new(Reliable);
    assert!(machine.handle_response(at(0), 404, &T));
    assert_eq!(machine.handle_timeout(at(32_000), &T), ServerExpiry::Ended);

    // Timer L stays.
    let mut machine = InviteServer::new(Reliable);
    assert!(machine.handle_response(at(0), 200, &T));
    assert_eq!(machine.poll_timeout(), Some(at(32_000)));
}

#[test]
fn over_a_reliable_transport_a_non_invite_request_is_sent_once_and_over_with_its_response() {
    let mut machine = NonInviteClient::new(at(0), &T, Reliable);
    assert_eq!(machine.poll_timeout(), Some(at(32_000)));
    assert_eq!(machine.handle_response(at(100), 100, &T), ClientReaction::Pass);
    assert_eq!(machine.poll_timeout(), Some(at(32_000)));
    assert_eq!(machine.handle_response(at(200), 200, &T), ClientReaction::Pass);
    assert_eq!(machine.poll_timeout(), Some(at(200)));
    assert_eq!(machine.handle_timeout(at(200), &T), ClientExpiry::Ended);
    assert_eq!(machine.poll_timeout(), None);

    let mut machine = NonInviteClient::new(at(0), &T, Reliable);
    assert_eq!(machine.handle_timeout(at(32_000), &T), ClientExpiry::TimedOut);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn over_a_reliable_transport_too_100_comes_when_timer_e_would_be_t2() {
    let mut machine = NonInviteServer::new(at(0), &T, Reliable);
    assert_eq!(machine.poll_timeout(), Some(at(3_500)));
    assert_eq!(machine.handle_timeout(at(3_500)), ServerExpiry::Trying);
    assert!(machine.handle_response(at(4_000), 200, &T));
    assert_eq!(machine.poll_timeout(), Some(at(4_000)));
    assert_eq!(machine.handle_timeout(at(4_000)), ServerExpiry::Ended);
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn an_invite_that_cannot_be_delivered_is_over_and_its_user_told() {
    for delivery in [Reliable, Unreliable] {
        let mut machine = InviteClient::new(at(0), &T, delivery);
        assert!(machine.handle_failure(at(10)));
        assert!(!machine.is_pending());
        assert!(!machine.handle_failure(at(11)), "told once");
        assert!(!machine.cancel(at(12), &T));
        assert_eq!(machine.handle_response(at(13), 180, &T), ClientReaction::Absorb);
        assert!(!machine.take_cancel(at(13), &T));
        assert_eq!(machine.poll_timeout(), Some(at(10)));
        assert_eq!(machine.handle_timeout(at(13), &T), ClientExpiry::Ended);
        assert_eq!(machine.poll_timeout(), None);
    }
}

#[test]
fn an_invite_that_was_answered_does_not_fail() {
    let mut machine = InviteClient::new(at(0), &T, Reliable);
    machine.handle_response(at(1), 180, &T);
    assert!(!machine.handle_failure(at(2)));
    assert!(machine.is_pending());
    // The 200 comes by another connection.
    assert_eq!(machine.handle_response(at(3), 200, &T), ClientReaction::Pass);
    assert!(!machine.handle_failure(at(4)));
    assert_eq!(machine.handle_response(at(5), 200, &T), ClientReaction::Pass);

    // The ACK could not be delivered: over, but its user has the response.
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    machine.handle_response(at(1), 486, &T);
    assert!(!machine.handle_failure(at(2)));
    assert_eq!(machine.handle_timeout(at(2), &T), ClientExpiry::Ended);

    // So has one that was told of the silence.
    let mut machine = InviteClient::new(at(0), &T, Unreliable);
    machine.handle_timeout(at(5_000), &T);
    assert!(!machine.handle_failure(at(5_001)));
    assert_eq!(machine.handle_timeout(at(5_001), &T), ClientExpiry::Ended);
}

#[test]
fn a_non_invite_request_that_cannot_be_delivered_is_over_and_its_user_told() {
    let mut machine = NonInviteClient::new(at(0), &T, Reliable);
    machine.handle_response(at(1), 100, &T);
    assert!(machine.handle_failure(at(10)));
    assert!(!machine.handle_failure(at(11)), "told once");
    assert_eq!(machine.handle_response(at(12), 200, &T), ClientReaction::Absorb);
    assert_eq!(machine.handle_timeout(at(12), &T), ClientExpiry::Ended);
    assert_eq!(machine.poll_timeout(), None);

    let mut machine = NonInviteClient::new(at(0), &T, Unreliable);
    machine.handle_response(at(1), 200, &T);
    assert!(!machine.handle_failure(at(2)));
    assert_eq!(machine.poll_timeout(), Some(at(5_001)));
}

/// What may happen to a machine.
#[derive(Debug, Clone, Copy)]
enum Event {
    Response(u16),
    Request,
    Ack,
    Cancel,
    Failure,
    /// Milliseconds.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (100_u16..700).prop_map(Event::Response),
        Just(Event::Response(200)),
        Just(Event::Response(180)),
        Just(Event::Request),
        Just(Event::Ack),
        Just(Event::Cancel),
        Just(Event::Failure),
        (0_u64..20_000).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Whatever happens to it, a machine that is asked when it wants to be does something, never asks for the past again, and ends.
    #[test]
    fn no_machine_asks_for_ever(events in proptest::collection::vec(event(), 0..12), reliable: bool) {
        let delivery = if reliable { Reliable } else { Unreliable };
        let mut now = at(0);
        let mut invite_client = InviteClient::new(now, &T, delivery);
        let mut invite_server = InviteServer::new(delivery);
        let mut client = NonInviteClient::new(now, &T, delivery);
        let mut server = NonInviteServer::new(now, &T, delivery);
        for event in events {
            match event {
                Event::Response(code) => {
                    invite_client.handle_response(now, code, &T);
                    invite_client.take_cancel(now, &T);
                    invite_server.handle_response(now, code, &T);
                    client.handle_response(now, code, &T);
                    server.handle_response(now, code, &T);
                }
                Event::Request => {
                    invite_server.handle_request();
                    server.handle_request();
                }
                Event::Ack => { invite_server.handle_ack(now, &T); }
                Event::Cancel => { invite_client.cancel(now, &T); }
                Event::Failure => {
                    invite_client.handle_failure(now);
                    client.handle_failure(now);
                }
                Event::Wait(ms) => now = now + Duration::from_millis(ms),
            }
            // Each machine is asked until it has no wish left for now.
            for _ in 0..64 {
                if invite_client.poll_timeout().is_some_and(|due| due <= now) {
                    prop_assert_ne!(invite_client.handle_timeout(now, &T), ClientExpiry::Wait);
                }
                if invite_server.poll_timeout().is_some_and(|due| due <= now) {
                    prop_assert_ne!(invite_server.handle_timeout(now, &T), ServerExpiry::Wait);
                }
                if client.poll_timeout().is_some_and(|due| due <= now) {
                    prop_assert_ne!(client.handle_timeout(now, &T), ClientExpiry::Wait);
                }
                if server.poll_timeout().is_some_and(|due| due <= now) {
                    prop_assert_ne!(server.handle_timeout(now), ServerExpiry::Wait);
                }
            }
            let timeouts = [
                invite_client.poll_timeout(), invite_server.poll_timeout(), client.poll_timeout(), server.poll_timeout(),
            ];
            for due in timeouts.into_iter().flatten() {
                prop_assert!(due > now, "asks for the past");
            }
        }
        invite_server.handle_response(now, 500, &T);
        for _ in 0..10 {
            now = now + Duration::from_secs(60);
            invite_client.handle_timeout(now, &T);
            invite_server.handle_timeout(now, &T);
            client.handle_timeout(now, &T);
            server.handle_timeout(now);
        }
        prop_assert_eq!(invite_client.handle_timeout(now, &T), ClientExpiry::Ended);
        prop_assert_eq!(invite_server.handle_timeout(now, &T), ServerExpiry::Ended);
        prop_assert_eq!(client.handle_timeout(now, &T), ClientExpiry::Ended);
        prop_assert_eq!(server.handle_timeout(now), ServerExpiry::Ended);
        let timeouts = [
            invite_client.poll_timeout(), invite_server.poll_timeout(), client.poll_timeout(), server.poll_timeout(),
        ];
        prop_assert_eq!(timeouts, [None; 4]);
    }
}
