//! What destinations show unasked, marks, and what survives a change of configuration or names.

use super::*;

const TWO: [(&str, u16, u16); 2] = [("sip:198.51.100.1", 1, 1), ("sip:198.51.100.2", 2, 1)];

impl Lot {
    /// Health and reason of each event since the last look, and how many bulletins there were.
    fn news(&mut self) -> (Vec<(Health, String)>, usize) {
        let event = |event: &Event| match event {
            Event::Destination { trunk, health, reason, .. } => {
                assert_eq!(trunk, "destination");
                (*health, reason.clone())
            }
            other => panic!("{other:?}"),
        };
        let news = (self.outbox.events().iter().map(event).collect(), self.outbox.bulletins().len());
        self.outbox.clear();
        news
    }
}

#[test]
fn retry_after_concerns_one_destination_and_ends() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    assert_eq!(lot.tries("call"), [1, 2]);
    lot.answer(1, 503, Some(20));
    let until = NOW + secs(20);
    assert_eq!(lot.tries("call"), [2, 1], "the other first, however low its priority");
    assert_eq!(lot.status(1).health, Health::AvoidUntil(until));
    let reason = "503 with Retry-After, taken as 20 s".to_owned();
    assert_eq!((lot.status(1).since, lot.status(1).reason), (Some(NOW), reason.clone()));
    assert_eq!(lot.news(), (vec![(Health::AvoidUntil(until), reason)], 1));
    lot.answer(1, 200, None);
    assert_eq!(lot.first("call"), 2, "an answer to another request takes nothing back");
    lot.pass(secs(20) - Duration::from_micros(1));
    assert_eq!(lot.first("call"), 2);
    lot.pass(Duration::from_micros(1));
    assert_eq!((lot.first("call"), lot.status(1).health), (1, Health::Up));
}

#[test]
fn retry_after_is_believed_for_five_minutes_at_most() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    lot.answer(1, 503, Some(u32::MAX));
    assert_eq!(lot.status(1).health, Health::AvoidUntil(NOW + secs(300)));
}

#[test]
fn what_is_no_retry_after_of_a_503_changes_nothing() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    for (code, retry_after) in [(503, None), (503, Some(0)), (480, Some(60)), (600, Some(60)), (100, None)] {
        lot.answer(1, code, retry_after);
    }
    lot.answer(77, 503, Some(60));
    assert_eq!((lot.status(1).health, lot.first("call"), lot.news()), (Health::Up, 1, (vec![], 0)));
}

#[test]
fn the_whole_pool_is_never_taken_out_by_503() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    lot.answer(1, 503, Some(60));
    lot.answer(2, 503, Some(60));
    assert_eq!(lot.tries("call"), [1, 2]);
}

#[test]
fn a_flood_of_refusals_is_one_event_and_a_bulletin_per_second_at_most() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    for _ in 0..1_000 {
        lot.answer(1, 503, Some(60));
        lot.pass(Duration::from_millis(10));
    }
    let (events, bulletins) = lot.news();
    assert_eq!(events.len(), 1);
    assert!((9..=11).contains(&bulletins), "{bulletins} in 10 s");
}

#[test]
fn three_silences_in_a_row_are_avoided_and_any_answer_in_between_starts_anew() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    for _ in 0..10 {
        lot.silence(1);
        lot.silence(1);
        lot.answer(1, 486, None);
    }
    assert_eq!((lot.first("call"), lot.news()), (1, (vec![], 0)));
    for _ in 0..3 {
        lot.silence(1);
    }
    let until = Health::AvoidUntil(NOW + secs(30));
    assert_eq!((lot.first("call"), lot.status(1).failures), (2, 3));
    assert_eq!(lot.news(), (vec![(until, "3 in a row without any answer".into())], 1));
    lot.pass(secs(31));
    assert_eq!(lot.first("call"), 1, "after that one call finds out");
    lot.silence(1);
    assert_eq!(lot.first("call"), 2, "and its silence is enough");
    lot.news();
    lot.answer(1, 180, None);
    assert_eq!((lot.first("call"), lot.status(1).failures), (1, 0));
    assert_eq!(lot.news(), (vec![(Health::Up, "it answers".into())], 1));
}

#[test]
fn a_transport_failure_is_avoided_for_a_short_while_at_once() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    lot.failure(1);
    assert_eq!((lot.status(1).health, lot.first("call")), (Health::AvoidUntil(NOW + secs(10)), 2));
    lot.pass(secs(10));
    assert_eq!(lot.first("call"), 1);
}

#[test]
fn only_destinations_of_the_configuration_are_noted() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    for last in 100..200 {
        lot.silence(last);
        lot.failure(last);
        lot.answer(last, 503, Some(60));
        lot.told(last, Health::Down);
        assert!(!lot.mark(last, Mark::Down));
    }
    assert_eq!((lot.destinations.states.len(), lot.news()), (2, (vec![], 0)));
    assert_eq!(lot.destinations.poll_timeout(), None);
}

#[test]
fn what_one_shard_has_found_out_holds_on_the_others() {
    let (mut one, mut other) = (Lot::new(Select::Weight, &TWO), Lot::new(Select::Weight, &TWO));
    for _ in 0..3 {
        one.silence(1);
    }
    let tell = |from: &mut Lot, to: &mut Lot| {
        for bulletin in from.outbox.bulletins().to_vec() {
            to.destinations.handle_bulletin(to.now, &bulletin);
        }
        from.outbox.clear();
    };
    tell(&mut one, &mut other);
    assert_eq!((other.first("call"), other.status(1).reason.as_str()), (2, "another shard has found it out"));
    one.answer(1, 200, None);
    tell(&mut one, &mut other);
    assert_eq!(other.first("call"), 1);
    one.failure(1);
    tell(&mut one, &mut other);
    other.pass(secs(10));
    assert_eq!((other.first("call"), other.status(1).health), (1, Health::Up));
}

#[test]
fn marks_keep_new_calls_away_whatever_the_health() {
    for mark in [Mark::Draining, Mark::Down] {
        let mut lot = Lot::new(Select::Weight, &TWO);
        assert!(lot.mark(1, mark));
        lot.told(1, Health::Up);
        lot.answer(1, 200, None);
        assert_eq!((lot.tries("call"), lot.status(1).mark), (vec![2], mark));
        assert!(lot.mark(2, mark));
        assert_eq!(lot.choose("call", &[]), Choice::Unavailable);
        lot.mark(1, Mark::InService);
        assert_eq!(lot.tries("call"), [1]);
    }
}

#[test]
fn health_and_marks_survive_a_new_configuration_and_what_it_drops_is_forgotten() {
    let mut lot = Lot::new(Select::Weight, &TWO);
    lot.mark(1, Mark::Draining);
    lot.answer(2, 503, Some(60));
    lot.reload(Select::CallId, &[TWO[0], TWO[1], ("sip:198.51.100.3", 9, 1)]);
    assert_eq!((lot.status(1).mark, lot.status(2).health), (Mark::Draining, Health::AvoidUntil(NOW + secs(60))));
    assert_eq!(lot.tries("call"), [3, 2]);
    lot.reload(Select::Weight, &TWO[1..]);
    assert_eq!(lot.destinations.states.len(), 1);
    lot.reload(Select::Weight, &TWO);
    assert_eq!((lot.status(1).mark, lot.first("call")), (Mark::InService, 1));
}

#[test]
fn a_server_that_name_servers_leave_out_for_a_while_keeps_its_mark_but_not_for_ever() {
    let mut lot = Lot::new(Select::Weight, &[("sip:carrier.example", 1, 1)]);
    lot.resolve("carrier.example", &[(0, 1, 1), (0, 1, 2)]);
    lot.mark(1, Mark::Down);
    lot.resolve("carrier.example", &[(0, 1, 2)]);
    assert_eq!(lot.destinations.list(&lot.setup, &lot.names).len(), 1);
    lot.pass(secs(3_000));
    lot.resolve("carrier.example", &[(0, 1, 1), (0, 1, 2)]);
    assert_eq!((lot.status(1).mark, lot.tries("call")), (Mark::Down, vec![2]));
    lot.resolve("carrier.example", &[(0, 1, 2)]);
    lot.pass(secs(3_600));
    lot.resolve("carrier.example", &[(0, 1, 2), (0, 1, 3)]);
    lot.resolve("carrier.example", &[(0, 1, 1)]);
    assert_eq!((lot.status(1).mark, lot.first("call")), (Mark::InService, 1));
}

#[test]
fn a_name_whose_servers_change_all_the_time_does_not_fill_the_memory() {
    let mut lot = Lot::new(Select::Weight, &[("sip:carrier.example", 1, 1)]);
    let query = Query { host: "carrier.example".into(), port: None, transport: None, secure: false };
    let mut most = 0;
    for number in 0..5_000_u16 {
        let [high, low] = number.to_be_bytes();
        let address = format!("198.18.{high}.{low}:5060");
        lot.names.handle_resolved(lot.now, &query, &[bench::server(&address)], secs(60));
        lot.destinations.refresh(lot.now, &lot.setup, &lot.names);
        most = most.max(lot.destinations.states.len());
    }
    assert!((2..=1_026).contains(&most), "{most}");
}
