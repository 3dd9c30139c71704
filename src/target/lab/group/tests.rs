//! Refreshes on virtual time, with instances that do what the test says.

use super::*;

/// When a new instance of the tests is healthy after its launch.
const BOOT: Duration = Duration::from_millis(500);
/// How long an instance of the tests drains.
const DRAIN: Duration = Duration::from_secs(2);
/// A step of virtual time.
const TICK: Duration = Duration::from_millis(100);
/// Longest virtual time that a refresh of the tests may take.
const LIMIT: Duration = Duration::from_secs(300);

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

/// Instances on virtual time, and a group of them.
struct World {
    now: Duration,
    instances: Vec<(Seen, Option<Duration>)>,
    last: u32,
    group: Group,
    /// Versions whose instances end by themselves.
    fails: Vec<u64>,
    /// Versions whose instances never get healthy.
    silent: Vec<u64>,
    /// Fewest healthy ones, and most that were there, at any moment.
    least: usize,
    most: usize,
    told: Vec<(RefreshStatus, u32, bool)>,
}

impl World {
    fn with(count: u32) -> Self {
        let drain = DrainTimes { accept_ms: 1_000, grace_ms: 30_000 };
        let version = |number| Version { number, created_unix_ms: 0, user_data: number.to_string(), drain };
        let mut group = Group::new(Scaling { min: 1, max: 10 }, version(1));
        assert_eq!(group.put("2", drain, 0).0, 2);
        let mut world = Self {
            now: Duration::ZERO,
            instances: Vec::new(),
            last: 0,
            group,
            fails: Vec::new(),
            silent: Vec::new(),
            least: usize::MAX,
            most: 0,
            told: Vec::new(),
        };
        for _ in 0..count {
            world.launch(1);
        }
        world.pass(BOOT);
        (world.least, world.most) = (usize::MAX, 0);
        world
    }

    fn launch(&mut self, version: u64) -> InstanceId {
        self.last += 1;
        let id = InstanceId(format!("i-{}", self.last));
        let seen =
            Seen { id: id.clone(), version, alive: true, launched: self.now, healthy_since: None, leaving: false };
        self.instances.push((seen, None));
        id
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += TICK;
            let now = self.now;
            for (seen, ends) in &mut self.instances {
                let up = now >= seen.launched + BOOT;
                if up && self.fails.contains(&seen.version) {
                    (seen.alive, seen.healthy_since) = (false, None);
                } else if up && seen.alive && !seen.leaving && !self.silent.contains(&seen.version) {
                    seen.healthy_since.get_or_insert(now);
                }
                if ends.is_some_and(|moment| now >= moment) {
                    seen.alive = false;
                }
            }
            self.instances.retain(|(_, ends)| ends.is_none_or(|moment| now < moment));
            let healthy = self.instances.iter().filter(|(seen, _)| seen.healthy_since.is_some()).count();
            let staying = self.instances.iter().filter(|(seen, _)| !seen.leaving && seen.alive).count();
            (self.least, self.most) = (self.least.min(healthy), self.most.max(staying));
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.instances.iter().map(|(seen, _)| seen.clone()).collect()
    }

    fn versions(&self) -> Vec<u64> {
        self.instances.iter().map(|(seen, _)| seen.version).collect()
    }

    fn start(&mut self, version: u64, preferences: Preferences) -> String {
        let seen = self.seen();
        self.group.start(version, preferences, &seen).expect("started")
    }

    fn leave(&mut self, id: &InstanceId, drain: Duration) {
        let now = self.now;
        let (seen, ends) = self.instances.iter_mut().find(|(seen, _)| seen.id == *id).expect("it is there");
        assert!(!seen.leaving, "{id} leaves twice");
        (seen.leaving, seen.healthy_since, *ends) = (true, None, Some(now + drain));
    }

    /// Makes moves until `until` holds.
    fn run_until(&mut self, id: &str, until: impl Fn(&Refresh) -> bool) -> Refresh {
        loop {
            assert!(self.now < LIMIT, "the refresh does not get there: {:?}, {:?}", self.told, self.seen());
            let seen = self.seen();
            let now = self.now;
            let run = self.group.run(id).expect("it is known");
            let next = run.next(now, &seen);
            let status = run.status(now, &seen);
            let told = (status.status, status.percent, status.at_checkpoint);
            if self.told.last() != Some(&told) {
                self.told.push(told);
            }
            if until(&status) {
                return status;
            }
            match next {
                Move::Launch(version) => {
                    let instance = self.launch(version);
                    self.group.run(id).expect("it is known").has_launched(instance, version);
                }
                Move::Retire(instance) => self.leave(&instance, DRAIN),
                Move::Discard(instance) => self.leave(&instance, TICK),
                Move::Wait(_) => self.pass(TICK),
                Move::End => return status,
            }
        }
    }

    fn run(&mut self, id: &str) -> Refresh {
        self.run_until(id, |_| false)
    }
}

#[test]
fn new_ones_are_ready_before_old_ones_leave() {
    for count in [1, 2, 3, 7] {
        let mut world = World::with(count);
        let single = Preferences { max_healthy_percent: 200, ..preferences() };
        let id = world.start(2, if count == 1 { single } else { preferences() });
        let ended = world.run(&id);
        assert_eq!((ended.status, ended.percent, ended.instances_to_update), (RefreshStatus::Successful, 100, 0));
        assert_eq!(world.versions(), vec![2; count as usize], "{count}");
        assert_eq!(world.least, count as usize, "{count}: never below");
        let most = if count == 1 { 2 } else { (count as usize * 3).div_ceil(2) };
        assert!(world.most > count as usize && world.most <= most, "{count}: {} at most {most}", world.most);
    }
}

#[test]
fn it_waits_at_the_first_checkpoint_with_one_instance_replaced() {
    let mut world = World::with(4);
    let id = world.start(2, Preferences { checkpoint_delay_s: 5, ..preferences() });
    let waits = world.run_until(&id, |refresh| refresh.at_checkpoint);
    assert_eq!((waits.status, waits.percent, waits.instances_to_update), (RefreshStatus::InProgress, 25, 3));
    let begun = world.now;
    world.run_until(&id, |refresh| !refresh.at_checkpoint);
    assert!((world.now - begun).as_secs_f32() >= 5.0, "it waited {:?}", world.now - begun);
    let baking = world.run_until(&id, |refresh| refresh.status == RefreshStatus::Baking);
    assert_eq!(baking.percent, 100);
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
}

#[test]
fn with_none_above_old_ones_leave_first_and_never_too_many() {
    let mut world = World::with(4);
    let figures = Preferences { min_healthy_percent: 50, max_healthy_percent: 100, ..preferences() };
    let id = world.start(2, figures);
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
    assert_eq!((world.least, world.most), (2, 4));
    assert_eq!(world.versions(), [2; 4]);
}

#[test]
fn matching_ones_stay_or_are_replaced_as_well() {
    let mut world = World::with(2);
    world.launch(2);
    world.pass(BOOT);
    let id = world.start(2, preferences());
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
    assert!(world.seen().iter().any(|seen| seen.id.0 == "i-3"), "it matches");
    let id = world.start(2, Preferences { skip_matching: false, ..preferences() });
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
    assert!(world.seen().iter().all(|seen| seen.id.0 != "i-3"), "all are replaced");
    assert_eq!(world.versions(), [2; 3]);
}

#[test]
fn nothing_to_replace_is_done_at_once() {
    let mut world = World::with(0);
    let id = world.start(2, preferences());
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
    assert!(world.versions().is_empty());
}

#[test]
fn a_rollback_brings_the_old_version_back_from_anywhere() {
    type Moment = fn(&Refresh) -> bool;
    let moments: [Moment; 4] = [
        |refresh| refresh.percent == 0,
        |refresh| refresh.at_checkpoint,
        |refresh| refresh.percent >= 75,
        |refresh| refresh.status == RefreshStatus::Baking,
    ];
    for (number, moment) in moments.into_iter().enumerate() {
        let mut world = World::with(4);
        let id = world.start(2, preferences());
        world.run_until(&id, moment);
        let seen = world.seen();
        world.group.run(&id).expect("known").roll_back("asked".to_owned(), &seen).expect("in progress");
        let ended = world.run(&id);
        assert_eq!(ended.status, RefreshStatus::RollbackSuccessful, "{number}");
        assert_eq!(ended.reason.as_deref(), Some("asked"));
        assert_eq!(world.versions(), [1; 4], "{number}");
        assert!(world.least >= 4, "{number}: never below");
        let seen = world.seen();
        assert!(world.group.run(&id).expect("known").roll_back(String::new(), &seen).is_err(), "it is over");
    }
}

#[test]
fn a_version_that_does_not_boot_is_rolled_back_by_itself() {
    for silent in [false, true] {
        let mut world = World::with(3);
        if silent {
            world.silent.push(2)
        } else {
            world.fails.push(2)
        }
        let id = world.start(2, preferences());
        let ended = world.run(&id);
        assert_eq!(ended.status, RefreshStatus::RollbackSuccessful);
        let reason = ended.reason.expect("a reason");
        assert!(reason.contains(if silent { "not healthy within" } else { "ended by itself" }), "{reason}");
        assert_eq!((world.versions(), world.least), (vec![1; 3], 3));
    }
}

#[test]
fn old_ones_that_have_ended_are_replaced_as_well() {
    let mut world = World::with(3);
    let (dead, _) = &mut world.instances[0];
    (dead.alive, dead.healthy_since) = (false, None);
    let id = world.start(2, preferences());
    assert_eq!(world.run(&id).status, RefreshStatus::Successful);
    assert_eq!(world.versions(), [2; 2], "as many as were alive");
    assert_eq!(world.least, 2);
}

#[test]
fn what_ec2_auto_scaling_refuses_is_refused() {
    let mut world = World::with(2);
    let cases = [
        Preferences { min_healthy_percent: 101, ..preferences() },
        Preferences { max_healthy_percent: 99, ..preferences() },
        Preferences { max_healthy_percent: 201, ..preferences() },
        Preferences { max_healthy_percent: 100, ..preferences() },
        Preferences { checkpoints: vec![50, 50], ..preferences() },
        Preferences { checkpoints: vec![0, 100], ..preferences() },
        Preferences { checkpoints: Vec::new(), ..preferences() },
    ];
    let seen = world.seen();
    for case in cases {
        assert!(world.group.start(2, case.clone(), &seen).is_err(), "{case:?}");
    }
    assert!(world.group.start(3, preferences(), &seen).is_err(), "there is no version 3");
    let id = world.start(2, preferences());
    assert!(world.group.start(2, preferences(), &seen).is_err(), "one at a time");
    world.group.run(&id).expect("known").cancel().expect("in progress");
    assert!(world.group.start(2, preferences(), &seen).is_ok(), "the other one is cancelled");
}

#[test]
fn a_version_is_made_once() {
    let mut world = World::with(0);
    let drain = DrainTimes { accept_ms: 1_000, grace_ms: 30_000 };
    assert_eq!(world.group.put("2", drain, 0).0, 2);
    assert_eq!(world.group.put("1", drain, 0).0, 3, "what was there before the newest is made anew");
    assert_eq!(world.group.put("1", DrainTimes { accept_ms: 2_000, ..drain }, 0).0, 4);
}

#[test]
fn what_was_asked_for_before_the_way_back_goes_too() {
    let mut world = World::with(3);
    let id = world.start(2, preferences());
    // The move is to launch one of the new version; while it boots, the refresh is turned back.
    let (seen, now) = (world.seen(), world.now);
    assert_eq!(world.group.run(&id).expect("known").next(now, &seen), Move::Launch(2));
    world.group.run(&id).expect("known").roll_back("a client asked for it".to_owned(), &seen).expect("in progress");
    let late = world.launch(2);
    world.group.run(&id).expect("known").has_launched(late, 2);
    let ended = world.run(&id);
    assert_eq!(ended.status, RefreshStatus::RollbackSuccessful, "{ended:?}");
    assert_eq!(world.versions(), [1, 1, 1]);
}
