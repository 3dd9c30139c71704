//! Which destination a call takes.

use super::*;

const THREE: [(&str, u16, u16); 3] =
    [("sip:198.51.100.1", 1, 5), ("sip:198.51.100.2", 1, 3), ("sip:198.51.100.3", 1, 2)];

#[test]
fn targets_get_calls_by_weight() {
    for select in [Select::Weight, Select::All] {
        let shares = Lot::new(select, &THREE).shares();
        for (last, share) in [(1, 0.5), (2, 0.3), (3, 0.2)] {
            assert!(is_share(shares[last], 10_000, share), "{select:?}: {last} got {}", shares[last]);
        }
    }
}

#[test]
fn the_call_id_alone_spreads_evenly() {
    let shares = Lot::new(Select::CallId, &THREE).shares();
    assert!(shares[1..=3].iter().all(|share| is_share(*share, 10_000, 1.0 / 3.0)), "{:?}", &shares[..4]);
}

#[test]
fn servers_of_a_name_get_calls_by_weight_and_the_worse_priority_when_the_better_is_gone() {
    let mut lot = Lot::new(Select::Weight, &[("sip:carrier.example", 1, 1)]);
    lot.resolve("carrier.example", &[(10, 60, 1), (10, 40, 2), (10, 0, 3), (20, 1, 4)]);
    let shares = lot.shares();
    assert!(is_share(shares[1], 10_000, 0.6) && is_share(shares[2], 10_000, 0.4), "{} {}", shares[1], shares[2]);
    for call in calls().take(100) {
        assert_eq!(lot.tries(&call)[2..], [3, 4]);
    }
}

#[test]
fn a_name_with_many_servers_gets_no_more_than_its_target_s_share() {
    let mut lot = Lot::new(Select::Weight, &[("sip:carrier.example", 1, 1), ("sip:198.51.100.9", 1, 1)]);
    lot.resolve("carrier.example", &[(10, 1, 1), (10, 1, 2), (10, 1, 3), (20, 1, 4)]);
    let shares = lot.shares();
    assert!(is_share(shares[9], 10_000, 0.5), "{}", shares[9]);
    assert!((1..=3).all(|last| is_share(shares[last], 10_000, 1.0 / 6.0)), "{:?}", &shares[..10]);
}

#[test]
fn every_instance_chooses_alike_wherever_the_targets_stand() {
    for select in [Select::Weight, Select::CallId, Select::All] {
        let mut other_order = THREE;
        other_order.reverse();
        let (mut one, mut other) = (Lot::new(select, &THREE), Lot::new(select, &other_order));
        for call in calls().take(1_000) {
            let tries = one.tries(&call);
            assert_eq!(tries, other.tries(&call), "{call}");
            let mut all = tries.clone();
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3], "each once");
        }
    }
}

#[test]
fn a_target_that_goes_or_comes_moves_only_its_own_calls() {
    for select in [Select::CallId, Select::Weight] {
        let mut all = Lot::new(select, &THREE);
        let mut fewer = Lot::new(select, &THREE[..2]);
        let mut marked = Lot::new(select, &THREE);
        marked.mark(3, Mark::Draining);
        let mut moved = 0;
        for call in calls() {
            let (with, without) = (all.first(&call), fewer.first(&call));
            assert!(with == 3 || with == without, "{select:?}: {call} went from {with} to {without}");
            assert_eq!(marked.first(&call), without, "out of service is like not there");
            moved += u32::from(with == 3);
        }
        assert!(moved > 1_000, "{moved}");
    }
}

#[test]
fn priorities_come_one_after_the_other_and_weight_0_at_the_end_of_its_own() {
    let targets = [
        ("sip:198.51.100.1", 2, 1),
        ("sip:198.51.100.2", 1, 0),
        ("sip:198.51.100.3", 1, 1),
        ("sip:198.51.100.4", 1, 9),
        ("sip:198.51.100.5", 0, 1),
    ];
    for select in [Select::Weight, Select::CallId, Select::RoundRobin, Select::All] {
        let mut lot = Lot::new(select, &targets);
        for call in calls().take(100) {
            let tries = lot.tries(&call);
            let mut second = tries[1..3].to_vec();
            second.sort_unstable();
            assert_eq!((tries[0], &second[..], &tries[3..]), (5, &[3, 4][..], &[2, 1][..]), "{select:?}: {tries:?}");
        }
    }
}

#[test]
fn where_all_have_weight_0_all_get_calls() {
    let mut lot = Lot::new(Select::Weight, &[("sip:198.51.100.1", 1, 0), ("sip:198.51.100.2", 1, 0)]);
    assert!(is_share(lot.shares()[1], 10_000, 0.5));
}

#[test]
fn round_robin_takes_turns_among_those_in_service() {
    let mut lot = Lot::new(Select::RoundRobin, &THREE);
    let firsts: Vec<u8> = (0..6).map(|_| lot.first("the same call")).collect();
    assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
    lot.told(2, Health::Down);
    let firsts: Vec<u8> = (0..4).map(|_| lot.first("the same call")).collect();
    assert_eq!(firsts, [1, 3, 1, 3], "the next in line does not get the lost one's turns");
    lot.told(2, Health::Up);
    let firsts: Vec<u8> = (0..6).map(|_| lot.first("the same call")).collect();
    assert_eq!(firsts, [2, 1, 3, 2, 1, 3], "no catching up");

    let mut named = Lot::new(Select::RoundRobin, &[("sip:carrier.example", 1, 1), ("sip:198.51.100.9", 1, 1)]);
    named.resolve("carrier.example", &[(0, 1, 1), (0, 1, 2)]);
    let firsts: Vec<u8> = (0..8).map(|_| named.first("the same call")).collect();
    assert_eq!(firsts, [1, 9, 2, 9, 1, 9, 2, 9]);
}

#[test]
fn none_in_service_is_not_the_same_as_all_tried() {
    let mut lot = Lot::new(Select::Weight, &THREE);
    assert_eq!(lot.choose("call", &[1, 2, 3]), Choice::Exhausted);
    for last in 1..=3 {
        lot.told(last, Health::Down);
    }
    assert_eq!(lot.choose("call", &[]), Choice::Unavailable);
    assert_eq!(lot.choose("call", &[1]), Choice::Exhausted, "it went down after it was tried");
    lot.told(2, Health::Up);
    assert_eq!(lot.tries("call"), [2]);
    assert_eq!(Lot::new(Select::Weight, &[("sip:unknown.example", 1, 1)]).choose("call", &[]), Choice::Unavailable);
    let trunk = lot.destinations.choose(NOW, &lot.setup, &lot.names, 7, 0, |_| false);
    assert_eq!(trunk, Choice::Unavailable, "there is no such trunk");
}

#[test]
fn a_call_forks_to_the_best_server_of_each_target_of_the_best_priority() {
    let targets = [
        ("sip:carrier.example", 1, 1),
        ("sip:198.51.100.8", 1, 1),
        ("sip:198.51.100.9", 1, 1),
        ("sip:198.51.100.7", 1, 0),
        ("sip:198.51.100.6", 2, 1),
    ];
    let mut lot = Lot::new(Select::All, &targets);
    lot.resolve("carrier.example", &[(10, 1, 1), (20, 1, 2)]);
    let mut set = vec![Candidate { target: 77, server: server(77) }];
    let mut fork = |lot: &mut Lot, call: &str| -> Vec<u8> {
        let call = call_hash(call.as_bytes());
        lot.destinations.set(lot.now, &lot.setup, &lot.names, 1, call, &mut set);
        set.iter().map(last_of).collect()
    };
    for call in calls().take(100) {
        let order: Vec<u8> = lot.tries(&call).into_iter().filter(|last| [1, 8, 9].contains(last)).collect();
        assert_eq!(fork(&mut lot, &call), order, "as `choose` would take them");
    }
    let mut fork = |lot: &mut Lot| -> Vec<u8> {
        let mut forked = fork(lot, "call");
        forked.sort_unstable();
        forked
    };
    lot.told(1, Health::Down);
    lot.told(8, Health::AvoidUntil(NOW + secs(5)));
    assert_eq!(fork(&mut lot), [2, 9]);
    for last in [2, 9] {
        lot.mark(last, Mark::Down);
    }
    assert_eq!(fork(&mut lot), [7], "weight 0 when the others are gone, before the next priority");
    lot.mark(7, Mark::Down);
    assert_eq!(fork(&mut lot), [6]);
    lot.mark(6, Mark::Down);
    assert_eq!(fork(&mut lot), [8], "an avoided one when there is no other");
    lot.mark(8, Mark::Down);
    assert!(fork(&mut lot).is_empty());
    assert!(!lot.destinations.has_any(lot.now, &lot.setup, &lot.names, 1));
}

#[test]
fn whether_there_is_any_takes_no_turn() {
    let mut lot = Lot::new(Select::RoundRobin, &THREE);
    let firsts: Vec<u8> = (0..3)
        .map(|_| {
            assert!(lot.destinations.has_any(lot.now, &lot.setup, &lot.names, 1));
            lot.first("the same call")
        })
        .collect();
    assert_eq!(firsts, [1, 2, 3]);
}
