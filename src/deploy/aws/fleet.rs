//! The autoscaling group of an account as [`Fleet`].

use std::collections::BTreeSet;
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

    /// The newest version of the launch template, and those before it, oldest first.
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
    pub fn operators_call(&self, transport: Transport) -> Result<Report, Cause> {
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
        Ok(verify::run_operator(self.plan, &addresses, transport, password.trim_end(), &rfc3339(now_unix_ms())))
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

    fn smoke_call(&self, _instances: &[String]) -> Result<SmokeCall, Cause> {
        let report = self.operators_call(Transport::Udp)?;
        // The load balancer chooses the instance by the operator's address, and the answer names it in the report.
        Ok(SmokeCall { report, through: Vec::new() })
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
