//! The AWS account: whose credentials, which region, and whether there is room for what the spec asks.

use std::path::Path;

use sipedge_aws::Aws;

use super::{Check, Health};
use crate::deploy::Project;
use crate::deploy::aws::{connect, find_image};
use crate::plan::{self, AwsPlan, Plan, TargetKind, Topology};
use crate::spec::{Count, Loaded};

/// Elastic IPs of a region (Service Quotas, "EC2-VPC Elastic IPs"; 5 unless raised, 2026-11).
const ELASTIC_IPS: (&str, &str) = ("ec2", "L-0263D0A3");
/// VPCs of a region (Service Quotas, "VPCs per Region"; 5 unless raised, 2026-11).
const VPCS: (&str, &str) = ("vpc", "L-F678F1CE");

/// Looks at the account that the spec names. Changes nothing.
pub(super) fn examine(file: &Path, loaded: Option<&Loaded>) -> Vec<Check> {
    let Some(loaded) = loaded else {
        return vec![Check::new(
            "account",
            Health::Warning,
            "without a spec it is not known which account and region to look at",
        )];
    };
    let plans: Vec<Plan> = [Topology::SingleEc2, Topology::LoadBalanced]
        .into_iter()
        .filter_map(|topology| plan::plan(loaded, topology, TargetKind::Aws).ok())
        .collect();
    let Some(account) = plans.first().and_then(|plan| plan.aws.as_ref()) else {
        return vec![
            Check::new("account", Health::Problem, "the spec cannot be planned for AWS").confirmed_by("sipedge check"),
        ];
    };
    let at = arguments(account);
    let mut checks = Vec::new();
    let (aws, identity) = match connect(account).and_then(|aws| aws.identity().map(|identity| (aws, identity))) {
        Ok(both) => both,
        Err(error) => {
            let check = Check::new("credentials", Health::Problem, error.to_string());
            return vec![check.confirmed_by(format!("aws sts get-caller-identity{at}"))];
        }
    };
    checks.push(
        Check::new("credentials", Health::Ok, format!("{} of account {}", identity.arn, identity.account))
            .confirmed_by(format!("aws sts get-caller-identity{at}")),
    );
    checks.push(image(account, &aws, &at));
    let Ok(project) = Project::new(file, &loaded.spec.name) else { return checks };
    let new: Vec<&Plan> =
        plans.iter().filter(|plan| !project.state_on(TargetKind::Aws, plan.topology).exists()).collect();
    checks.push(room("Elastic IPs", ELASTIC_IPS, aws.elastic_ips_used(), &new, elastic_ips, &aws, &at));
    checks.push(room("VPCs", VPCS, aws.vpcs_used(), &new, vpcs, &aws, &at));
    if let Some(check) = unused_targets(&project, &aws, &at) {
        checks.push(check);
    }
    checks
}

/// `--region` and `--profile` as one types them.
fn arguments(account: &AwsPlan) -> String {
    format!(" --region {} --profile {}", account.region, account.profile)
}

fn image(account: &AwsPlan, aws: &Aws, at: &str) -> Check {
    let command = match &account.image {
        Some(id) => format!("aws ec2 describe-images --image-ids {id}{at}"),
        None => format!(
            "aws ec2 describe-images --owners self --filters 'Name=tag:sipedge:version,Values={}'{at}",
            env!("CARGO_PKG_VERSION")
        ),
    };
    let check = match find_image(account, aws) {
        Ok(id) => Check::new("image", Health::Ok, format!("instances start from {id}")),
        Err(cause) => Check::new("image", Health::Problem, cause.to_string()),
    };
    check.confirmed_by(command)
}

/// Elastic IPs that a topology makes.
fn elastic_ips(plan: &Plan) -> u32 {
    let zones = u32::try_from(plan.network.zones.len()).unwrap_or(u32::MAX);
    let Some(egress) = plan.aws.as_ref().and_then(|aws| aws.egress) else { return 1 };
    let gateways = if egress.gateways == Count::One { 1 } else { zones };
    zones + gateways * egress.addresses
}

/// VPCs that it makes.
fn vpcs(plan: &Plan) -> u32 {
    u32::from(plan.aws.as_ref().is_some_and(|aws| aws.vpc.is_none()))
}

/// Whether the account's quota has room for the topologies that are not there yet, one by one and together.
fn room(
    what: &'static str,
    (service, code): (&str, &str),
    used: Result<u32, sipedge_aws::AwsError>,
    new: &[&Plan],
    needs: fn(&Plan) -> u32,
    aws: &Aws,
    at: &str,
) -> Check {
    let command = format!("aws service-quotas get-service-quota --service-code {service} --quota-code {code}{at}");
    let (used, quota) = match (used, aws.quota(service, code)) {
        (Ok(used), Ok(Some(quota))) => (used, quota),
        (Ok(_), Ok(None)) => {
            return Check::new(what, Health::Warning, "Service Quotas does not know how many there may be")
                .confirmed_by(command);
        }
        (Err(error), _) | (_, Err(error)) => {
            return Check::new(what, Health::Warning, format!("cannot be asked: {error}")).confirmed_by(command);
        }
    };
    let left = quota - f64::from(used);
    let mut state = Health::Ok;
    let mut says = format!("{used} of {quota} are used");
    for plan in new {
        let needed = needs(plan);
        if f64::from(needed) > left {
            state = Health::Problem;
            says.push_str(&format!("; {} needs {needed} more: ask for a higher quota, or release some", plan.topology));
        } else {
            says.push_str(&format!("; {} needs {needed} more", plan.topology));
        }
    }
    let together: u32 = new.iter().map(|plan| needs(plan)).sum();
    if state == Health::Ok && f64::from(together) > left {
        state = Health::Warning;
        says.push_str(", and there is no room for both at once");
    }
    Check::new(what, state, says).confirmed_by(command)
}

/// Targets that the load balancer never sends to: their zone has no address of it.
fn unused_targets(project: &Project, aws: &Aws, at: &str) -> Option<Check> {
    let outputs = project.state_on(TargetKind::Aws, Topology::LoadBalanced).outputs().ok()??;
    let mut unused = Vec::new();
    let mut last = String::new();
    for target_group in outputs.target_group_arns.values() {
        last.clone_from(target_group);
        let targets =
            match aws.target_health(target_group) {
                Ok(targets) => targets,
                Err(error) => {
                    let check = Check::new("targets", Health::Warning, format!("cannot be asked: {error}"));
                    return Some(check.confirmed_by(format!(
                        "aws elbv2 describe-target-health --target-group-arn {target_group}{at}"
                    )));
                }
            };
        unused.extend(
            targets
                .into_iter()
                .filter(|target| target.reason.as_deref() == Some("Target.NotInUse"))
                .map(|target| target.instance),
        );
    }
    unused.sort();
    unused.dedup();
    let check = if unused.is_empty() {
        Check::new("targets", Health::Ok, "every target is in a zone of the load balancer")
    } else {
        let says = format!(
            "{} get no calls: the load balancer has no address in their zone. Name the zones of the load balancer in aws.zones",
            unused.join(", ")
        );
        Check::new("targets", Health::Problem, says)
    };
    Some(check.confirmed_by(format!("aws elbv2 describe-target-health --target-group-arn {last}{at}")))
}
