//! The leader against a fleet that says what the test has written down, on virtual time.

use std::cell::{Cell, RefCell};

use super::super::fleet::{Group, SmokeCall};
use super::*;
use crate::plan::{TargetKind, Topology};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A fleet with a script: each look at the refresh takes one word from it, the last one stays.
///
/// `0` to `99`: in progress; with `!`: at a checkpoint; `pending`, `bake`, `ok`, `failed`, `cancelled`, `back`, `rolled`, `lost`: the
/// statuses; `?`: the target does not answer.
struct Scripted {
    script: RefCell<Vec<String>>,
    /// What follows when it is turned back.
    after_rollback: RefCell<Vec<String>>,
    in_progress: RefCell<Option<Refresh>>,
    passes: bool,
    placed: RefCell<Vec<Vec<String>>>,
    alarms: RefCell<Vec<(Duration, String)>>,
    /// Requests for a rollback that are refused before one is granted.
    refusals: Cell<u32>,
    /// Whether a start is heard, and its answer lost.
    start_is_lost: bool,
    /// Calls that meet no new instance before one does.
    misses: Cell<u32>,
    time: Cell<Duration>,
    said: RefCell<Vec<String>>,
}

fn words(text: &str) -> RefCell<Vec<String>> {
    RefCell::new(text.split_whitespace().rev().map(str::to_owned).collect())
}

impl Scripted {
    fn new(script: &str) -> Self {
        Self {
            script: words(script),
            after_rollback: words("back rolled"),
            in_progress: RefCell::new(None),
            passes: true,
            placed: RefCell::default(),
            alarms: RefCell::default(),
            refusals: Cell::default(),
            start_is_lost: false,
            misses: Cell::default(),
            time: Cell::default(),
            said: RefCell::default(),
        }
    }

    fn say(&self, text: impl Into<String>) {
        self.said.borrow_mut().push(text.into());
    }

    fn unreachable() -> Cause {
        Cause::Lab(crate::target::lab::LabError::Group("no answer".to_owned()))
    }
}

fn refresh(word: &str) -> Refresh {
    let status = match word {
        "pending" => RefreshStatus::Pending,
        "bake" => RefreshStatus::Baking,
        "ok" => RefreshStatus::Successful,
        "failed" => RefreshStatus::Failed,
        "cancelled" => RefreshStatus::Cancelled,
        "back" => RefreshStatus::RollbackInProgress,
        "rolled" => RefreshStatus::RollbackSuccessful,
        "lost" => RefreshStatus::RollbackFailed,
        _ => RefreshStatus::InProgress,
    };
    let percent = word.trim_end_matches('!').parse().unwrap_or(100);
    Refresh {
        id: "r".to_owned(),
        status,
        reason: (status == RefreshStatus::Failed).then(|| "out of addresses".to_owned()),
        percent,
        instances_to_update: u32::from(percent < 100),
        version: 2,
        at_checkpoint: word.ends_with('!'),
    }
}

impl Fleet for Scripted {
    fn group(&self) -> Result<Group, Cause> {
        let member = |id: &str, version| Member {
            id: id.to_owned(),
            address: None,
            zone: "z".to_owned(),
            version,
            lifecycle: Lifecycle::InService,
            healthy: true,
            in_progress: None,
            proxy: None,
        };
        let mut instances = vec![member("old", 1)];
        if !self.said.borrow().is_empty() {
            instances.push(member("new", 2));
        }
        Ok(Group { name: "g".to_owned(), min: 1, max: 3, desired: 1, version: 1, instances })
    }

    fn start_refresh(&self, version: u64, _: &Preferences) -> Result<String, Cause> {
        self.say(format!("start {version}"));
        if self.start_is_lost {
            return Err(Self::unreachable());
        }
        Ok("r".to_owned())
    }

    fn refresh(&self, _: &str) -> Result<Refresh, Cause> {
        let mut script = self.script.borrow_mut();
        let word = if script.len() > 1 { script.pop() } else { script.last().cloned() };
        match word.as_deref() {
            None | Some("?") => Err(Self::unreachable()),
            Some(word) => Ok(refresh(word)),
        }
    }

    fn refresh_in_progress(&self) -> Result<Option<Refresh>, Cause> {
        Ok(self.in_progress.borrow().clone())
    }

    fn roll_back(&self, _: &str) -> Result<(), Cause> {
        self.say("roll back");
        if let Some(left) = self.refusals.get().checked_sub(1) {
            self.refusals.set(left);
            return Err(Self::unreachable());
        }
        self.script.replace(self.after_rollback.take());
        self.in_progress.replace(None);
        Ok(())
    }

    fn smoke_call(&self, instances: &[String]) -> Result<SmokeCall, Cause> {
        self.say("call");
        self.placed.borrow_mut().push(instances.to_vec());
        let report = Report {
            edge: "e".to_owned(),
            topology: Topology::LoadBalanced,
            target: TargetKind::Lab,
            started: String::new(),
            took_ms: 0.0,
            passed: self.passes,
            calls: Vec::new(),
        };
        let left = self.misses.get().checked_sub(1);
        self.misses.set(left.unwrap_or_default());
        let through = if left.is_some() { Vec::new() } else { instances.to_vec() };
        Ok(SmokeCall { report, through })
    }

    fn alarms(&self) -> Result<Vec<String>, Cause> {
        let alarms = self.alarms.borrow();
        let on = alarms.iter().filter(|(from, _)| *from <= self.time.get());
        Ok(on.map(|(_, name)| name.clone()).collect())
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(1)
    }
}

impl Clock for Scripted {
    fn now(&self) -> Duration {
        self.time.get()
    }

    fn sleep(&self, time: Duration) {
        self.time.set(self.time.get() + time);
    }
}

/// What a run wrote down.
#[derive(Default)]
struct Desk {
    steps: Vec<String>,
    record: Option<RefreshRecord>,
    events: Events,
}

#[derive(Default)]
struct Events(Vec<String>);

impl Progress for Events {
    fn event(&mut self, event: &Event<'_>) {
        self.0.push(serde_json::to_string(event).expect("JSON"));
    }
}

impl Steps for Desk {
    fn begin(&mut self, step: Step) -> Result<(), Cause> {
        self.steps.push(format!("{}…", step.name()));
        Ok(())
    }

    fn end(&mut self, step: Step, outcome: Outcome, _: &str) -> Result<(), Cause> {
        let begun = self.steps.pop();
        assert_eq!(begun, Some(format!("{}…", step.name())), "a step ends that has not begun");
        let mark = if outcome == Outcome::Done { "" } else { "!" };
        self.steps.push(format!("{}{mark}", step.name()));
        Ok(())
    }

    fn remember(&mut self, record: Option<&RefreshRecord>) -> Result<(), Cause> {
        self.record = record.cloned();
        Ok(())
    }

    fn progress(&mut self) -> &mut dyn Progress {
        &mut self.events
    }
}

fn preferences() -> Preferences {
    Preferences {
        min_healthy_percent: 100,
        max_healthy_percent: 150,
        checkpoints: vec![10, 100],
        checkpoint_delay_s: 1,
        bake_s: 1,
        warmup_s: 0,
        skip_matching: true,
    }
}

fn options(known: Option<RefreshRecord>) -> LeadOptions {
    LeadOptions { timeout: TIMEOUT, smoke_call: true, known }
}

fn record(smoke_call: bool) -> RefreshRecord {
    RefreshRecord {
        id: "r".to_owned(),
        version: 2,
        previous: 1,
        before: vec!["old".to_owned()],
        alarms: Vec::new(),
        smoke_call,
    }
}

fn led(fleet: &Scripted, known: Option<RefreshRecord>) -> (Result<Led, Cause>, Desk) {
    let mut desk = Desk::default();
    let led = lead(fleet, 2, &preferences(), &options(known), fleet, &mut desk);
    (led, desk)
}

#[track_caller]
fn failure(result: Result<Led, Cause>) -> RefreshFailure {
    match result {
        Err(Cause::Refresh(failure)) => *failure,
        other => panic!("a failed refresh was expected: {other:?}"),
    }
}

#[test]
fn started_called_at_the_checkpoint_and_followed_to_the_end() {
    let fleet = Scripted::new("pending 0 0 50! 50! 50 bake bake ok");
    let (led, desk) = led(&fleet, None);
    let led = led.expect("it succeeds");
    assert_eq!((led.version, led.previous, led.adopted), (2, 1, false));
    assert!(led.report.is_some_and(|report| report.passed));
    assert_eq!(desk.steps, ["refresh", "smoke-call", "bake"]);
    assert_eq!(desk.record, None, "nothing is left to adopt");
    assert_eq!(*fleet.said.borrow(), ["start 2", "call"]);
    assert_eq!(*fleet.placed.borrow(), [["new"]], "through the new instance alone");
    let statuses = desk.events.0.iter().filter(|event| event.contains(r#""event":"refresh""#)).count();
    assert_eq!(statuses, 6, "each change once: {:#?}", desk.events.0);
}

#[test]
fn a_refresh_that_is_past_its_checkpoint_is_called_while_it_bakes() {
    let fleet = Scripted::new("0 bake bake ok");
    let (led, desk) = led(&fleet, None);
    assert!(led.is_ok());
    assert_eq!(desk.steps, ["refresh", "smoke-call", "bake"]);
}

#[test]
fn one_that_was_over_before_anybody_looked_is_called_nevertheless() {
    let fleet = Scripted::new("ok");
    let (led, desk) = led(&fleet, None);
    assert!(led.is_ok());
    assert_eq!((desk.steps.len(), fleet.placed.borrow().len()), (3, 1));
}

#[test]
fn a_call_that_fails_turns_it_back() {
    let fleet = Scripted { passes: false, ..Scripted::new("0 50! 50!") };
    let (led, desk) = led(&fleet, None);
    let failure = failure(led);
    assert!(matches!(failure.why, Trouble::SmokeCall { version: 2, .. }), "{failure}");
    assert_eq!(failure.back, Back::Version(1));
    assert_eq!(desk.steps, ["refresh", "smoke-call!", "rollback"]);
    assert_eq!((desk.record, fleet.said.borrow().last().map(String::as_str)), (None, Some("roll back")));
    assert!(failure.to_string().contains("version 1 is live again"), "{failure}");
}

#[test]
fn an_alarm_turns_it_back_unless_it_was_on_before() {
    let fleet = Scripted::new("0 50! 50 50 50 50 50 50 ok");
    fleet.alarms.borrow_mut().push((Duration::from_secs(4), "e-cpu".to_owned()));
    let (result, desk) = led(&fleet, None);
    let failure = failure(result);
    assert!(matches!(&failure.why, Trouble::Alarm(names) if names == &["e-cpu"]), "{failure}");
    assert_eq!(desk.steps, ["refresh", "smoke-call", "bake!", "rollback"]);

    let fleet = Scripted::new("0 50! 50 50 bake ok");
    fleet.alarms.borrow_mut().push((Duration::ZERO, "e-cpu".to_owned()));
    let (result, desk) = led(&fleet, None);
    assert!(result.is_ok());
    assert!(desk.events.0.iter().any(|event| event.contains("not counted: e-cpu")));
}

#[test]
fn a_timeout_turns_it_back() {
    let fleet = Scripted::new("0");
    let (result, desk) = led(&fleet, None);
    let failure = failure(result);
    assert!(matches!(failure.why, Trouble::Timeout { after: TIMEOUT, .. }), "{failure}");
    assert_eq!(desk.steps, ["refresh!", "rollback"]);
    assert!(fleet.time.get() >= TIMEOUT);
}

#[test]
fn a_rollback_that_does_not_end_or_fails_is_said() {
    for (script, said) in [("back", "was not in place after"), ("back lost", "rollback failed")] {
        let fleet = Scripted { passes: false, after_rollback: words(script), ..Scripted::new("50!") };
        let (result, desk) = led(&fleet, None);
        let Back::Not(reason) = failure(result).back else { panic!("it is not back") };
        assert!(reason.contains(said), "{reason}");
        assert_eq!(desk.steps, ["refresh", "smoke-call!", "rollback!"]);
        assert!(desk.record.is_some(), "the next run has to know of it");
    }
}

#[test]
fn what_the_target_ends_by_itself_is_said() {
    for (script, back) in [("0 back rolled", true), ("0 failed", false), ("0 cancelled", false)] {
        let fleet = Scripted::new(script);
        let (result, desk) = led(&fleet, None);
        let failure = failure(result);
        match (&failure.back, back) {
            (Back::Version(1), true) | (Back::Not(_), false) => {}
            other => panic!("{script}: {other:?}"),
        }
        if script.contains("failed") {
            assert!(failure.to_string().contains("out of addresses"), "{failure}");
        }
        assert_eq!(desk.steps.first().map(String::as_str), Some("refresh!"), "{script}");
    }
}

#[test]
fn a_target_that_does_not_answer_is_asked_again_and_then_left_alone() {
    let fleet = Scripted::new("0 ? ? 50! ? 50 bake ok");
    assert!(led(&fleet, None).0.is_ok());
    let fleet = Scripted::new("0 ?");
    let (result, desk) = led(&fleet, None);
    let failure = failure(result);
    assert!(matches!(failure.why, Trouble::Unreachable(_)), "{failure}");
    assert!(failure.to_string().contains("the next run adopts it"), "{failure}");
    assert!(desk.record.is_some());
}

#[test]
fn one_that_is_in_progress_is_adopted() {
    for (known, calls) in [(Some(record(true)), 0), (Some(record(false)), 1), (None, 1)] {
        let fleet = Scripted::new("50! 50 bake ok");
        fleet.in_progress.replace(Some(refresh("50!")));
        let (result, desk) = led(&fleet, known.clone());
        assert!(result.expect("it succeeds").adopted);
        assert_eq!(desk.steps, ["refresh", "smoke-call", "bake"]);
        assert_eq!(fleet.placed.borrow().len(), calls, "{known:?}");
        assert!(!fleet.said.borrow().iter().any(|said| said.starts_with("start")));
    }
}

#[test]
fn what_the_journal_knows_of_another_refresh_is_nothing() {
    let fleet = Scripted::new("50! 50 bake ok");
    fleet.in_progress.replace(Some(refresh("50!")));
    let other = RefreshRecord { id: "other".to_owned(), ..record(true) };
    assert!(led(&fleet, Some(other)).0.is_ok());
    assert_eq!(fleet.placed.borrow().len(), 1, "the call is placed");
}

#[test]
fn one_to_another_version_is_turned_back_first() {
    let fleet = Scripted { after_rollback: words("back rolled 0 50! bake ok"), ..Scripted::new("30") };
    fleet.in_progress.replace(Some(Refresh { version: 3, ..refresh("30") }));
    let (result, desk) = led(&fleet, None);
    assert!(!result.expect("it succeeds").adopted);
    assert_eq!(*fleet.said.borrow(), ["roll back", "start 2", "call"]);
    assert!(desk.events.0.iter().any(|event| event.contains("turned back first")));
}

#[test]
fn one_on_its_way_back_is_awaited_first() {
    let fleet = Scripted::new("back back rolled 0 50! bake ok");
    fleet.in_progress.replace(Some(refresh("back")));
    let (result, _) = led(&fleet, None);
    assert!(!result.expect("it succeeds").adopted);
    assert_eq!(*fleet.said.borrow(), ["start 2", "call"]);
}

#[test]
fn turning_back_by_hand() {
    let fleet = Scripted::new("50!");
    let mut desk = Desk::default();
    let none = turn_back(&fleet, &preferences(), &options(None), &fleet, &mut desk).expect("asked");
    assert_eq!((none, desk.steps.len()), (None, 0), "nothing is in progress");
    fleet.in_progress.replace(Some(refresh("50!")));
    let back = turn_back(&fleet, &preferences(), &options(None), &fleet, &mut desk).expect("asked");
    assert_eq!((back, desk.steps), (Some(Back::Version(1)), vec!["rollback".to_owned()]));
}

#[test]
fn going_back_needs_no_call() {
    let fleet = Scripted::new("0 50! 50 bake ok");
    let mut desk = Desk::default();
    go_back(&fleet, 2, &preferences(), &options(None), &fleet, &mut desk).expect("it succeeds");
    assert_eq!((desk.steps, desk.record), (vec!["rollback".to_owned()], None));
    assert_eq!(*fleet.said.borrow(), ["start 2"]);
}

#[test]
fn a_call_that_met_no_new_instance_is_placed_again_when_all_are_new() {
    let fleet = Scripted { misses: Cell::new(1), ..Scripted::new("0 50! 50 50 bake bake ok") };
    let (result, desk) = led(&fleet, None);
    assert_eq!(result.expect("it succeeds").through, ["new"]);
    assert_eq!(desk.steps, ["refresh", "smoke-call", "bake", "smoke-call", "bake"]);
    assert!(desk.events.0.iter().any(|event| event.contains("no call met a new instance")), "{:?}", desk.events.0);
    assert!(fleet.time.get() >= Duration::from_secs(3), "not at the checkpoint again");

    // There is nobody else then: it counts, whichever instance it met.
    let fleet = Scripted { misses: Cell::new(9), ..Scripted::new("0 50! 50 bake ok") };
    let (result, desk) = led(&fleet, None);
    assert!(result.expect("it succeeds").through.is_empty());
    assert_eq!((desk.steps.len(), fleet.placed.borrow().len()), (5, 2));
    let fleet = Scripted { misses: Cell::new(9), ..Scripted::new("0 bake ok") };
    assert!(led(&fleet, None).0.is_ok());
    assert_eq!(fleet.placed.borrow().len(), 1);
}

#[test]
fn who_is_cut_off_before_the_second_call_places_it() {
    let fleet = Scripted { misses: Cell::new(1), ..Scripted::new("0 50! 50 ?") };
    let (result, desk) = led(&fleet, None);
    assert!(matches!(failure(result).why, Trouble::Unreachable(_)));
    assert_eq!(desk.record.map(|record| record.smoke_call), Some(false), "nothing is proved");
}

#[test]
fn a_rollback_that_is_refused_is_asked_for_again_while_the_refresh_goes_forward() {
    let fleet = Scripted { passes: false, refusals: Cell::new(3), ..Scripted::new("50!") };
    let (result, desk) = led(&fleet, None);
    assert_eq!(failure(result).back, Back::Version(1));
    assert_eq!(desk.steps, ["refresh", "smoke-call!", "rollback"]);
    assert_eq!(fleet.said.borrow().iter().filter(|said| *said == "roll back").count(), 4);

    let fleet = Scripted { passes: false, refusals: Cell::new(u32::MAX), ..Scripted::new("50!") };
    let Back::Not(reason) = failure(led(&fleet, None).0).back else { panic!("it is never granted") };
    assert!(reason.contains("no answer"), "{reason}");
    assert!(fleet.time.get() >= TIMEOUT, "it was asked for as long as a refresh may take");

    // Also of one that is in the way.
    let fleet =
        Scripted { refusals: Cell::new(2), after_rollback: words("back rolled 0 50! bake ok"), ..Scripted::new("30") };
    fleet.in_progress.replace(Some(Refresh { version: 3, ..refresh("30") }));
    assert!(led(&fleet, None).0.is_ok());
    assert_eq!(*fleet.said.borrow(), ["roll back", "roll back", "roll back", "start 2", "call"]);
}

#[test]
fn what_has_succeeded_before_it_can_be_turned_back_is_replaced_again() {
    let fleet = Scripted { passes: false, refusals: Cell::new(u32::MAX), ..Scripted::new("ok") };
    let (result, desk) = led(&fleet, None);
    assert_eq!(failure(result).back, Back::Version(1));
    assert_eq!(*fleet.said.borrow(), ["start 2", "call", "roll back", "start 1"]);
    assert_eq!((desk.steps, desk.record), (vec!["refresh".into(), "smoke-call!".into(), "rollback".to_owned()], None));
    assert!(desk.events.0.iter().any(|event| event.contains("a refresh brings version 1")));

    let fleet = Scripted { passes: false, refusals: Cell::new(u32::MAX), ..Scripted::new("ok ok ok failed") };
    let Back::Not(reason) = failure(led(&fleet, None).0).back else { panic!("it is not back") };
    assert!(reason.contains("to version 1 ended by itself"), "{reason}");
}

#[test]
fn the_time_of_another_refresh_is_not_counted() {
    let almost = "30 ".repeat(50);
    let forward = "0 ".repeat(30);
    let fleet =
        Scripted { after_rollback: words(&format!("{almost} rolled {forward} 50! bake ok")), ..Scripted::new("30") };
    fleet.in_progress.replace(Some(Refresh { version: 3, ..refresh("30") }));
    assert!(led(&fleet, None).0.is_ok());
    assert!(fleet.time.get() > TIMEOUT);
}

#[test]
fn one_whose_start_was_not_answered_is_adopted_with_what_was_before_it() {
    let fleet = Scripted { start_is_lost: true, ..Scripted::new("0") };
    fleet.alarms.borrow_mut().push((Duration::ZERO, "e-cpu".to_owned()));
    let (result, desk) = led(&fleet, None);
    assert!(result.is_err());
    let record = desk.record.expect("it may have begun");
    assert_eq!((record.id.as_str(), record.version, record.previous), ("", 2, 1));
    assert_eq!((&record.before, &record.alarms), (&vec!["old".to_owned()], &vec!["e-cpu".to_owned()]));

    let fleet = Scripted::new("50! 50 bake ok");
    fleet.in_progress.replace(Some(refresh("50!")));
    fleet.alarms.borrow_mut().push((Duration::ZERO, "e-cpu".to_owned()));
    let (result, _) = led(&fleet, Some(record.clone()));
    let led_on = result.expect("the alarm was on before");
    assert_eq!((led_on.adopted, led_on.id.as_str()), (true, "r"));

    // It is about one version alone.
    let other = RefreshRecord { version: 7, smoke_call: true, ..record };
    let fleet = Scripted::new("50! 50 bake ok");
    fleet.in_progress.replace(Some(refresh("50!")));
    assert!(led(&fleet, Some(other)).0.is_ok());
    assert_eq!(fleet.placed.borrow().len(), 1, "the call is placed");
}

#[test]
fn alarms_that_are_on_say_nothing_of_a_refresh_that_nobody_knows() {
    let fleet = Scripted::new("50! 50 50 bake ok");
    fleet.in_progress.replace(Some(refresh("50!")));
    fleet.alarms.borrow_mut().push((Duration::ZERO, "e-cpu".to_owned()));
    assert!(led(&fleet, None).0.is_ok());
    let fleet = Scripted::new("50! 50 50 50 50 50 bake ok");
    fleet.in_progress.replace(Some(refresh("50!")));
    fleet.alarms.borrow_mut().push((Duration::from_secs(2), "e-cpu".to_owned()));
    assert!(matches!(failure(led(&fleet, None).0).why, Trouble::Alarm(_)), "one that goes off later does");
}
