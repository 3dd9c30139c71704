//! The autoscaling group of an account as [`Fleet`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sipedge_aws::{Aws, Group as AwsGroup, GroupInstance, Refresh as AwsRefresh, RefreshPreferences};
use sipedge_proxy::config::SecretRef;

use super::super::error::Cause;
use super::super::fleet::{Fleet, Group, Lifecycle, Member, Preferences, Refresh, RefreshStatus, SmokeCall};
use super::super::journal::{now_unix_ms, rfc3339};
use crate::plan::{Plan, Topology};
use crate::spec::Transport;
use crate::target::aws::Outputs;
use crate::verify::{self, Addresses, Report};

/// The group of one topology.
pub struct AwsFleet<'a> {
    aws: &'a Aws,
    plan: &'a Plan,
    group: String,
    template: String,
    alarms: Vec<String>,
    target_groups: Vec<String>,
    addresses: Addresses,
}

impl fmt::Debug for AwsFleet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsFleet").field("group", &self.group).field("template", &self.template).finish_non_exhaustive()
    }
}

impl<'a> AwsFleet<'a> {
    /// The group that `outputs` name.
    pub fn new(aws: &'a Aws, plan: &'a Plan, outputs: &Outputs) -> Self {
        Self {
            aws,
            plan,
            group: outputs.group_name.clone(),
            template: outputs.launch_template_id.clone(),
            alarms: outputs.refresh_alarm_names.clone(),
            target_groups: outputs.target_group_arns.values().cloned().collect(),
            addresses: Addresses {
                ingress: (outputs.ingress_addresses.first().copied().unwrap_or(NO_ADDRESS), 0).into(),
                egress: outputs.egress_addresses.clone(),
            },
        }
    }

    /// The versions of the launch template, oldest first.
    ///
    /// # Errors
    /// The account cannot be asked; there is no such template.
    pub fn versions(&self) -> Result<Vec<u64>, Cause> {
        Ok(self.aws.template_versions(&self.template)?.into_iter().map(|version| version.number).collect())
    }

    /// Instances that every target group calls healthy; none when there is no load balancer.
    fn healthy_targets(&self) -> Result<Option<BTreeSet<String>>, Cause> {
        if self.plan.topology == Topology::SingleEc2 || self.target_groups.is_empty() {
            return Ok(None);
        }
        let mut everywhere: Option<BTreeSet<String>> = None;
        for target_group in &self.target_groups {
            let targets = self.aws.target_health(target_group)?;
            let healthy: BTreeSet<String> =
                targets.into_iter().filter(|target| target.state == "healthy").map(|target| target.instance).collect();
            everywhere = Some(match everywhere {
                None => healthy,
                Some(before) => before.intersection(&healthy).cloned().collect(),
            });
        }
        Ok(everywhere)
    }

    /// The operator's call from this machine: to the answerer of the edge, with the password that is in Parameter Store.
    ///
    /// # Errors
    /// There is no answerer, no password, no such transport; the account cannot be asked. A call that does not pass is no error.
    pub fn operators_call(&self, transport: Transport) -> Result<Report, Cause> {
        let (addresses, password) = self.to_the_answerer(transport)?;
        Ok(verify::run_operator(self.plan, &addresses, transport, &password, &rfc3339(now_unix_ms())))
    }

    /// Where the answerer is called, and with which password.
    fn to_the_answerer(&self, transport: Transport) -> Result<(Addresses, String), Cause> {
        let no_answerer = || {
            Cause::NotAsExpected(
                "the spec says `verify.answerer: false`, so that there is nobody to call from here: deploy with --no-verify".to_owned(),
            )
        };
        let answerer = self.plan.proxy.answerer.as_ref().ok_or_else(no_answerer)?;
        let SecretRef::Ssm(name) = &answerer.password else { return Err(no_answerer()) };
        let gone =
            || Cause::NotAsExpected(format!("the answerer's password is not at {name}: deploy again, which makes it"));
        let password = self.aws.secret(name)?.ok_or_else(gone)?;
        let addresses = self.addresses.by(transport, self.plan).ok_or_else(|| {
            Cause::NotAsExpected(format!("the edge takes no calls by {transport}: its spec has not set it"))
        })?;
        Ok((addresses, password.trim_end().to_owned()))
    }

    fn there(&self) -> Result<AwsGroup, Cause> {
        self.aws.group(&self.group)?.ok_or_else(|| {
            Cause::NotAsExpected(format!(
                "the autoscaling group {} is not in the account: it was removed by hand. Deploy again, which makes it anew",
                self.group
            ))
        })
    }

    /// Alarms that may end a refresh: those that are quiet now. One that is in alarm already may be what the new version is to cure.
    fn quiet_alarms(&self) -> Result<Vec<String>, Cause> {
        let loud = self.alarms()?;
        Ok(self.alarms.iter().filter(|name| !loud.contains(name)).cloned().collect())
    }
}

impl Fleet for AwsFleet<'_> {
    fn group(&self) -> Result<Group, Cause> {
        let group = self.there()?;
        let ids: Vec<String> = group.instances.iter().map(|instance| instance.id.clone()).collect();
        let addresses = if ids.is_empty() { Default::default() } else { self.aws.addresses_of(&ids)? };
        let healthy = self.healthy_targets()?;
        let member = |instance: GroupInstance| {
            let lifecycle = lifecycle(&instance.lifecycle);
            let in_service = lifecycle == Lifecycle::InService && instance.health == "Healthy";
            Member {
                address: addresses.get(&instance.id).copied().flatten(),
                zone: instance.zone,
                version: instance.version.unwrap_or_default(),
                lifecycle,
                healthy: match &healthy {
                    Some(targets) => in_service && targets.contains(&instance.id),
                    None => in_service,
                },
                in_progress: None,
                proxy: None,
                id: instance.id,
            }
        };
        Ok(Group {
            name: group.name,
            min: group.min,
            max: group.max,
            desired: group.desired,
            version: group.template_version,
            instances: group.instances.into_iter().map(member).collect(),
        })
    }

    fn start_refresh(&self, version: u64, preferences: &Preferences) -> Result<String, Cause> {
        let asked = RefreshPreferences {
            min_healthy_percent: preferences.min_healthy_percent,
            max_healthy_percent: preferences.max_healthy_percent,
            checkpoints: preferences.checkpoints.clone(),
            checkpoint_delay_s: preferences.checkpoint_delay_s,
            bake_s: preferences.bake_s,
            warmup_s: Some(preferences.warmup_s),
            skip_matching: preferences.skip_matching,
            // sipedge leads the rollback; when it is cut off, AWS does it.
            auto_rollback: true,
            alarms: self.quiet_alarms()?,
        };
        Ok(self.aws.start_refresh(&self.group, &self.template, version, &asked)?)
    }

    fn refresh(&self, id: &str) -> Result<Refresh, Cause> {
        let found = self.aws.refresh(&self.group, Some(id))?;
        let found = found.ok_or_else(|| {
            Cause::NotAsExpected(format!("the instance refresh {id} of {} is not known to AWS any more", self.group))
        })?;
        self.read(found)
    }

    fn refresh_in_progress(&self) -> Result<Option<Refresh>, Cause> {
        let newest = self.aws.refresh(&self.group, None)?;
        newest.filter(|refresh| !refresh.is_final()).map(|refresh| self.read(refresh)).transpose()
    }

    fn roll_back(&self, _id: &str) -> Result<(), Cause> {
        // There is one refresh at a time; AWS rolls that one back.
        Ok(self.aws.roll_back_refresh(&self.group)?)
    }

    fn smoke_call(&self, instances: &[String]) -> Result<SmokeCall, Cause> {
        let (addresses, password) = self.to_the_answerer(Transport::Udp)?;
        let places = if instances.is_empty() { BTreeMap::new() } else { self.aws.addresses_of(instances)? };
        let started = rfc3339(now_unix_ms());
        let mut call = |whole: bool| {
            let run = if whole { verify::run_operator } else { verify::run_operator_briefly };
            run(self.plan, &addresses, Transport::Udp, &password, &started)
        };
        Ok(meet(&places, &mut call))
    }

    fn alarms(&self) -> Result<Vec<String>, Cause> {
        let Some(account) = &self.plan.aws else { return Ok(Vec::new()) };
        let mut loud = self.aws.alarms_in_alarm(&account.resource_name)?;
        loud.retain(|name| self.alarms.contains(name));
        Ok(loud)
    }

    fn pause(&self) -> Duration {
        LOOK_AGAIN
    }
}

/// Calls until one goes through one of `places`, instances with their addresses. The load balancer chooses by the caller's address and port,
/// and every call comes from another port; the answer names the instance. `call`: the whole call, or its main part alone.
fn meet(places: &BTreeMap<String, Option<IpAddr>>, call: &mut dyn FnMut(bool) -> Report) -> SmokeCall {
    let mut report = call(true);
    let mut tries = 1;
    loop {
        let named = report.calls.last().and_then(|call| call.instance.clone());
        let is_named = |(id, address): &(&String, &Option<IpAddr>)| {
            named
                .as_ref()
                .is_some_and(|name| name == *id || address.is_some_and(|address| address.to_string() == *name))
        };
        let through: Vec<String> = places.iter().filter(is_named).map(|(id, _)| id.clone()).collect();
        if !through.is_empty() || !report.passed || places.is_empty() || tries >= TRIES {
            return SmokeCall { report, through };
        }
        tries += 1;
        let again = call(false);
        // The last one is told beside the whole one.
        report.calls.truncate(1);
        report.took_ms += again.took_ms;
        report.passed &= again.passed;
        report.calls.extend(again.calls);
    }
}

/// Calls until one meets a new instance. Where every second instance is new, ten miss it once in a thousand times; where one of ten is, once
/// in three times, and the call is placed again when all are new.
const TRIES: u32 = 10;

/// Stands where Terraform has told of no ingress address; a call there reaches nobody.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Time between two looks: describe calls are throttled per account, at a few each second.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl AwsFleet<'_> {
    fn read(&self, refresh: AwsRefresh) -> Result<Refresh, Cause> {
        let status = match refresh.status.as_str() {
            "Pending" => RefreshStatus::Pending,
            "InProgress" => RefreshStatus::InProgress,
            "Baking" => RefreshStatus::Baking,
            "Successful" => RefreshStatus::Successful,
            "Failed" => RefreshStatus::Failed,
            "Cancelling" => RefreshStatus::Cancelling,
            "Cancelled" => RefreshStatus::Cancelled,
            "RollbackInProgress" => RefreshStatus::RollbackInProgress,
            "RollbackSuccessful" => RefreshStatus::RollbackSuccessful,
            "RollbackFailed" => RefreshStatus::RollbackFailed,
            other => return Err(Cause::NotAsExpected(format!("the instance refresh {} is {other}", refresh.id))),
        };
        let at_checkpoint = refresh.checkpoint().is_some();
        Ok(Refresh {
            status,
            reason: refresh.reason,
            percent: refresh.percent,
            instances_to_update: refresh.instances_to_update,
            version: match refresh.version {
                Some(version) => version,
                None => self.there()?.template_version,
            },
            at_checkpoint,
            id: refresh.id,
        })
    }
}

fn lifecycle(state: &str) -> Lifecycle {
    match state.split(':').next().unwrap_or_default() {
        "Pending" => Lifecycle::Pending,
        "InService" => Lifecycle::InService,
        "Terminating" => Lifecycle::Terminating,
        "Terminated" => Lifecycle::Terminated,
        _ => Lifecycle::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::TargetKind;
    use crate::verify::report::CallReport;

    fn report(instance: Option<&str>, passed: bool) -> Report {
        let call = CallReport {
            from: "operator".to_owned(),
            to: "answerer".to_owned(),
            caller: String::new(),
            edge: String::new(),
            callee: Vec::new(),
            instance: instance.map(str::to_owned),
            passed,
            checks: Vec::new(),
            ladder: Vec::new(),
        };
        Report {
            edge: "e".to_owned(),
            topology: Topology::LoadBalanced,
            target: TargetKind::Aws,
            started: String::new(),
            took_ms: 1.0,
            passed,
            calls: vec![call],
        }
    }

    fn new_ones() -> BTreeMap<String, Option<IpAddr>> {
        [("i-1".to_owned(), Some([10, 0, 1, 7].into())), ("i-2".to_owned(), None)].into()
    }

    #[test]
    fn it_is_called_until_a_new_instance_answers() {
        for (answers, through) in [(vec!["10.0.1.9", "10.0.1.8", "10.0.1.7"], "i-1"), (vec!["i-2"], "i-2")] {
            let (mut asked, mut rest) = (Vec::new(), answers.iter());
            let met = meet(&new_ones(), &mut |whole| {
                asked.push(whole);
                report(rest.next().copied(), true)
            });
            assert_eq!(met.through, [through]);
            assert_eq!(asked.len(), answers.len());
            assert!(asked.iter().enumerate().all(|(place, whole)| *whole == (place == 0)), "the first one is whole");
            assert_eq!(met.report.calls.len(), answers.len().min(2));
            assert_eq!(met.report.calls.last().and_then(|call| call.instance.as_deref()), answers.last().copied());
        }
    }

    #[test]
    fn it_gives_up_after_some_calls_and_at_once_when_one_fails() {
        let mut calls = 0;
        let met = meet(&new_ones(), &mut |_| {
            calls += 1;
            report(Some("10.0.1.9"), true)
        });
        assert_eq!((calls, met.through.len(), met.report.passed), (TRIES, 0, true));
        let mut calls = 0;
        let met = meet(&new_ones(), &mut |_| {
            calls += 1;
            report(Some("10.0.1.9"), calls < 3)
        });
        assert_eq!((calls, met.report.passed), (3, false));
        let mut calls = 0;
        meet(&BTreeMap::new(), &mut |_| {
            calls += 1;
            report(None, true)
        });
        assert_eq!(calls, 1, "there is nobody to meet");
    }
}
