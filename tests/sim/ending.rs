//! What has to be so in the end, and what has to be known meanwhile.

use sipedge_proxy::config::Select;
use sipedge_proxy::engine::Health;

use crate::edge::PROBE_MS;
use crate::plan::{MS, Record, SECOND};
use crate::world::{Mode, World};

impl World {
    /// Of the calls on a network that loses, doubles and reorders, and does nothing worse: how many there were, and how many became
    /// what both sides wanted nevertheless.
    pub fn met_in_spite_of_loss(&self) -> (u64, u64) {
        let profile = &self.profile;
        let others = profile.deaths + profile.breaks + profile.dns_faults + profile.stalls;
        if profile.is_quiet() || profile.crashes || profile.limits.cps.is_some() || others > 0 {
            return (0, 0);
        }
        let met = self.plans.iter().zip(&self.records);
        let met = met.filter(|(plan, record)| plan.is_met(record, profile, PATIENCE.1).is_ok()).count();
        (self.plans.len() as u64, met as u64)
    }

    /// What an instance knows of its destinations is so, once it has had time to find out.
    pub fn look(&self) -> Result<(), String> {
        // Whoever is only reached by a connection that is silent is down until the edge's host gives that up.
        let profile = &self.profile;
        if !profile.is_quiet() || profile.faults + profile.stalls + profile.dns_faults + profile.breaks > 0 {
            return Ok(());
        }
        for instance in &self.instances {
            for (shard, engine) in instance.shards.iter().enumerate() {
                for status in engine.destinations() {
                    let Some(agent) = self.agent_at(status.address) else { continue };
                    let known = self.now.saturating_sub(self.since[agent]);
                    let is_right = match self.modes[agent] {
                        Mode::Up => status.health != Health::Down,
                        Mode::Dead | Mode::Silent => status.health == Health::Down,
                    };
                    if known > FOUND_OUT && !is_right {
                        let (health, mode) = (status.health, self.modes[agent]);
                        let seconds = known / SECOND;
                        return Err(format!(
                            "{} is {mode:?} for {seconds} s, and shard {shard} has it as {health:?}: {}",
                            status.address, status.reason
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), String> {
        let instances = &self.instances;
        self.audit.end(|(index, life)| instances[index].is_up() && instances[index].life == life)?;
        self.nothing_is_left()?;
        if self.timeouts > 60 * (self.datagrams + 100) {
            return Err(format!("{} timeouts for {} datagrams", self.timeouts, self.datagrams));
        }
        if self.profile.only_crashes() {
            // A call that is up needs no instance in particular: its BYE passes by whichever there is.
            // A second callee of a fork whose 2xx came when the instance was lost ends by itself what the caller never heard of.
            let forks = self.profile.select == Select::All;
            let is_cut = |record: &Record| {
                let ended = record.byes.iter().filter(|code| **code == 200).count();
                record.acked && (ended == 0 || (ended < record.byes.len() && !forks))
            };
            if let Some((call, record)) = self.records.iter().enumerate().find(|(_, record)| is_cut(record)) {
                return Err(format!("call {call} was up and did not survive the loss of an instance: {record:?}"));
            }
        }
        let profile = &self.profile;
        if profile.is_quiet() && profile.stalls == 0 {
            for (plan, record) in self.plans.iter().zip(&self.records) {
                // A CANCEL that comes by another instance reaches those who ring then, not who is tried after them, or was away.
                let others = profile.callees.len() > 1 || profile.deaths > 0;
                let may_miss = profile.faults > 0 && others && plan.cancel.is_some();
                if record.caller_timed_out && profile.breaks == 0 && !may_miss {
                    return Err(format!("the caller never got a final response: {:?} became {record:?}", plan.shown()));
                }
            }
        }
        if profile.is_clean() {
            for (plan, record) in self.plans.iter().zip(&self.records) {
                plan.is_met(record, profile, PATIENCE.0)?;
            }
            // A CANCEL that went by another instance leaves those ringing who were tried after it, until Timer C.
            let ghost = self.agents.iter().find_map(|agent| agent.ghosts());
            if let Some(ghost) = ghost.filter(|_| profile.faults == 0 || profile.callees.len() == 1) {
                return Err(ghost);
            }
        }
        Ok(())
    }

    /// In the tables there is nothing, and no timer is left but those of names and of destinations that are avoided.
    fn nothing_is_left(&mut self) -> Result<(), String> {
        for instance in &mut self.instances {
            for engine in &mut instance.shards {
                for _ in 0..100 {
                    let Some(next) = engine.poll_timeout() else { break };
                    engine.handle_timeout(next);
                    let outbox = engine.outbox();
                    if outbox.transmits().len() != 0 || !outbox.bulletins().is_empty() {
                        return Err("something is sent when all is over".to_owned());
                    }
                    let has_asked = !outbox.resolves().is_empty();
                    engine.clear_outbox();
                    if engine.poll_timeout().is_some_and(|after| after <= next) {
                        return Err("a timer is left that is dealt with for ever".to_owned());
                    }
                    if has_asked {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// How long a CANCEL may take to end its call, on a clean network and on one that loses: always less than the edge's own Timer C, which
/// would end it too.
const PATIENCE: (u64, u64) = (SECOND, 25 * SECOND);
/// By then as many probes as are needed have gone out and come to nothing, or have been answered, and every shard has been told.
const FOUND_OUT: u64 = 4 * (PROBE_MS.0 as u64 * 11 / 10 + PROBE_MS.1 as u64) * MS;
