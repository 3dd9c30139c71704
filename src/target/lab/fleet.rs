//! The lab's group as [`Fleet`] has it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::libc;

use super::{InstanceId, InstanceStatus, Lab, LabError, STRANGER_NAMESPACE};
use crate::deploy::{
    Cause, Fleet, Group, Lifecycle, Member, Preferences, Refresh, SmokeCall, addresses, now_unix_ms, rfc3339,
};
use crate::plan::{Endpoint, Plan, VerifyCall};
use crate::spec::Transport;
use crate::verify::{self, Report};

/// Time between two looks at a refresh: it takes seconds.
const PAUSE: Duration = Duration::from_millis(100);
/// Addresses that are tried for a caller until there is one that no other program uses.
const SOURCES: usize = 64;
/// Distance between the ports that are tried at one address.
const PORT_STEP: u16 = 2;
/// The metric that tells how much an instance has to do yet.
const IN_PROGRESS: &str = "sipedge_pending_transactions ";

/// The group of a lab, and the plan whose calls prove it.
#[derive(Debug, Clone, Copy)]
pub struct LabFleet<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
}

impl<'a> LabFleet<'a> {
    /// Of `lab`, to be proved by the calls of `plan`.
    pub fn new(lab: &'a Lab, plan: &'a Plan) -> Self {
        Self { lab, plan }
    }

    /// Places the calls of the plan through the edge as it is. Where another program has an address of theirs, the call is placed from
    /// another address, and whoever is at the called one answers it.
    pub fn verified_call(&self) -> Result<Report, Cause> {
        let status = self.lab.status()?;
        let addresses = addresses(self.plan, &status).ok_or(Cause::NoIngress)?;
        for end in self.plan.verify.calls.iter().flat_map(|call| std::iter::once(&call.caller).chain(&call.callee)) {
            if self.lab.udp_socket(&end.namespace, end.address).is_err_and(|error| is_in_use(&error)) {
                let all: Vec<String> = status.instances.into_iter().map(|instance| instance.id.0).collect();
                return Ok(self.smoke_call(&all)?.report);
            }
        }
        Ok(verify::run(self.plan, &addresses, Transport::Udp, self.lab, &rfc3339(now_unix_ms())))
    }

    fn member(&self, instance: &InstanceStatus) -> Member {
        Member {
            id: instance.id.0.clone(),
            address: Some(instance.address),
            zone: instance.zone.clone(),
            version: instance.version,
            lifecycle: instance.lifecycle,
            healthy: instance.healthy,
            in_progress: self.in_progress(instance),
            proxy: None,
        }
    }

    /// Transactions that wait for a final response.
    fn in_progress(&self, instance: &InstanceStatus) -> Option<u64> {
        instance.pid?;
        let (status, page) = self.lab.http_get(&instance.id, "/metrics").ok()?;
        let value = page.lines().find_map(|line| line.strip_prefix(IN_PROGRESS))?;
        value.trim().parse().ok().filter(|_| status == 200)
    }

    /// Has a user agent's flow go to one of `instances`. Whether it can: nobody else may have its address.
    fn pin(&self, end: &Endpoint, edge: SocketAddr, instances: &[InstanceId]) -> Result<Pinned, LabError> {
        match self.lab.pin(&end.namespace, end.address, edge, instances) {
            Ok(target) => Ok(Pinned::To(target)),
            Err(error) if is_in_use(&error) => Ok(Pinned::InUse),
            Err(error) => Err(error),
        }
    }

    /// Prepares one call of the plan: all its user agents' flows go to `instances`, and its caller has an address that nobody uses.
    fn prepare(&self, call: &mut VerifyCall, edge: SocketAddr, instances: &[InstanceId]) -> Result<Prepared, LabError> {
        let trunk = self.plan.proxy.trunks.iter().find(|trunk| trunk.name == call.from);
        let ranges = trunk.map(|trunk| trunk.from.as_slice()).unwrap_or_default();
        let taken = |address: &IpAddr| call.callee.iter().any(|callee| callee.address.ip() == *address);
        let hosts: Vec<IpAddr> =
            ranges.iter().flat_map(|range| range.hosts().take(SOURCES)).filter(|address| !taken(address)).collect();
        let first = call.caller.address;
        let ports = (0..).map(|step| first.port().saturating_add(PORT_STEP * step));
        let others = ports.take(SOURCES).flat_map(|port| hosts.iter().map(move |host| SocketAddr::new(*host, port)));
        let candidates: Vec<SocketAddr> = std::iter::once(first).chain(others).take(SOURCES).collect();
        let mut through = None;
        for candidate in candidates {
            call.caller.address = candidate;
            if let Pinned::To(target) = self.pin(&call.caller, edge, instances)? {
                through = target;
                break;
            }
        }
        let mut callees_are_free = true;
        for callee in &call.callee {
            callees_are_free &= matches!(self.pin(callee, edge, instances)?, Pinned::To(_));
        }
        Ok(Prepared { through, callees_are_free })
    }
}

/// What a call was prepared to.
struct Prepared {
    /// The instance that its caller reaches.
    through: Option<InstanceId>,
    /// Whether our own user agents can answer it.
    callees_are_free: bool,
}

/// What became of a user agent's flow.
enum Pinned {
    /// It goes there; to whomever when there is no name.
    To(Option<InstanceId>),
    /// Another program has the address.
    InUse,
}

impl Fleet for LabFleet<'_> {
    fn group(&self) -> Result<Group, Cause> {
        let status = self.lab.status()?;
        let present = status.instances.iter().filter(|instance| instance.lifecycle != Lifecycle::Terminated);
        let members: Vec<Member> = present.map(|instance| self.member(instance)).collect();
        let staying = members.iter().filter(|member| member.lifecycle != Lifecycle::Terminating).count();
        Ok(Group {
            name: format!("sipedge-{}-{}", self.plan.name, self.plan.topology),
            min: status.group.min,
            max: status.group.max,
            desired: u32::try_from(staying).unwrap_or(u32::MAX),
            version: status.group.version,
            instances: members,
        })
    }

    fn start_refresh(&self, version: u64, preferences: &Preferences) -> Result<String, Cause> {
        Ok(self.lab.start_refresh(version, preferences)?)
    }

    fn refresh(&self, id: &str) -> Result<Refresh, Cause> {
        Ok(self.lab.refresh(id)?)
    }

    fn refresh_in_progress(&self) -> Result<Option<Refresh>, Cause> {
        Ok(self.lab.status()?.group.refresh.filter(|refresh| !refresh.status.is_final()))
    }

    fn roll_back(&self, id: &str) -> Result<(), Cause> {
        Ok(self.lab.roll_back(id)?)
    }

    fn smoke_call(&self, instances: &[String]) -> Result<SmokeCall, Cause> {
        let addresses = addresses(self.plan, &self.lab.status()?).ok_or(Cause::NoIngress)?;
        // Where another program answers, such as a load generator, the caller is ours alone.
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        let instances: Vec<InstanceId> = instances.iter().cloned().map(InstanceId).collect();
        let mut through = Vec::new();
        for mut call in self.plan.verify.calls.iter().cloned() {
            let prepared = self.prepare(&mut call, addresses.ingress, &instances)?;
            through.extend(prepared.through.map(|instance| instance.0));
            if prepared.callees_are_free { ours.push(call) } else { others.push(call) }
        }
        through.sort();
        through.dedup();
        for address in [verify::STRANGER_ADDRESS, verify::OPERATOR_ADDRESS] {
            let outside = Endpoint { namespace: STRANGER_NAMESPACE.to_owned(), address, transport: Transport::Udp };
            self.pin(&outside, addresses.ingress, &instances)?;
        }
        let started = rfc3339(now_unix_ms());
        let with = |calls: Vec<VerifyCall>| {
            let mut plan = self.plan.clone();
            plan.verify.calls = calls;
            plan
        };
        let mut report = verify::run_caller(&with(others), &addresses, self.lab, &started);
        if !ours.is_empty() || report.calls.is_empty() {
            let answered = verify::run(&with(ours), &addresses, Transport::Udp, self.lab, &started);
            report.passed = answered.passed && (report.passed || report.calls.is_empty());
            report.took_ms += answered.took_ms;
            report.calls.extend(answered.calls);
        }
        Ok(SmokeCall { report, through })
    }

    fn alarms(&self) -> Result<Vec<String>, Cause> {
        Ok(Vec::new())
    }

    fn pause(&self) -> Duration {
        PAUSE
    }
}

/// Whether somebody else has the address.
fn is_in_use(error: &LabError) -> bool {
    let text = std::io::Error::from_raw_os_error(libc::EADDRINUSE).to_string();
    matches!(error, LabError::Kernel { reason, .. } if *reason == text)
}
