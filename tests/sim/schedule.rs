//! When what goes wrong, and when the operator does what.

use crate::edge::Version;
use crate::names;
use crate::plan::{MS, SECOND};
use crate::world::{Event, Mode, World};

impl World {
    pub fn schedule(&mut self) {
        for (call, plan) in self.plans.iter().enumerate() {
            self.agents[plan.caller].will_call(call, plan.start);
        }
        for _ in 0..self.profile.faults {
            let index = self.rng.range(0, 2) as usize;
            let at = self.rng.range(0, 30_000) * MS;
            let back = at + self.rng.range(3_000, 20_000) * MS;
            if self.profile.crashes && self.rng.chance(60) {
                let noticed = at + self.rng.range(0, 3_000) * MS;
                self.at(at, Event::Crash(index));
                self.at(noticed, Event::TakeOut(index));
                self.at(back, Event::Start(index));
            } else {
                self.at(at, Event::TakeOut(index));
            }
            self.at(back + 500 * MS, Event::PutBack(index));
        }
        for _ in 0..self.profile.deaths {
            let callees = self.profile.callees.len() as u64;
            let agent = self.profile.callers.len() + self.rng.range(0, callees) as usize;
            let at = self.rng.range(0, 40_000) * MS;
            let mode = if self.rng.chance(50) { Mode::Dead } else { Mode::Silent };
            self.at(at, Event::Become(agent, mode));
            let back = at + self.rng.range(1_000, 40_000) * MS;
            self.at(back, Event::Become(agent, Mode::Up));
        }
        for _ in 0..self.profile.breaks {
            let agent = self.rng.range(0, self.agents.len() as u64) as usize;
            let (at, is_silent) = (self.rng.range(0, 40_000) * MS, self.rng.chance(40));
            self.at(at, Event::Spoil(agent, is_silent));
        }
        for _ in 0..self.profile.stalls {
            let index = self.rng.range(0, 2) as usize;
            let (at, length) = (self.rng.range(0, 40_000) * MS, self.rng.range(100, 40_000) * MS);
            self.at(at, Event::Stall(index, length));
        }
        for (at, event) in names::faults(&self.profile, &mut self.rng) {
            self.at(at, Event::Name(event));
        }
        self.schedule_reloads();
        for _ in 0..self.profile.strangers {
            let at = self.rng.range(0, 45_000) * MS;
            self.at(at, Event::Stranger);
        }
        if self.profile.probes {
            self.at(5 * SECOND, Event::Look);
        }
        self.at(if self.profile.rotates { KEYS[2] + 10 * SECOND } else { 60 * SECOND }, Event::Finish);
    }

    fn schedule_reloads(&mut self) {
        // In the order of their times, so that each builds on the one before.
        let mut changes: Vec<(u64, Option<u8>)> = Vec::new();
        for _ in 0..self.profile.reloads {
            changes.push((self.rng.range(0, 40_000) * MS, None));
        }
        if self.profile.rotates {
            changes.extend(KEYS.into_iter().zip(1..).map(|(at, step)| (at, Some(step))));
        }
        changes.sort_unstable();
        let mut version = Version::default();
        for (at, keys) in changes {
            match keys {
                Some(step) => version.keys = step,
                None => {
                    version.turned = self.rng.chance(50);
                    let targets = &self.profile.targets;
                    let place = self.rng.range(0, targets.len() as u64) as usize;
                    // A name that comes back may or may not be known still: only addresses go.
                    let may_go = !self.profile.is_clean() && targets.len() > 1 && targets[place].name.is_none();
                    version.without = (may_go && self.rng.chance(50)).then_some(place);
                }
            }
            for index in 0..2 {
                let after = self.rng.range(0, 3_000) * MS;
                self.at(at + after, Event::Reload(index, version.clone()));
            }
        }
    }
}

/// When the rotation of the token keys takes its steps: the old key goes when its calls are over.
pub const KEYS: [u64; 3] = [4 * SECOND, 14 * SECOND, 160 * SECOND];
