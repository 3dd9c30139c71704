//! The lab's group as [`Fleet`] has it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::libc;

use super::{InstanceId, InstanceStatus, Lab, LabError};
use crate::deploy::{
    Cause, Fleet, Group, Lifecycle, Member, Preferences, Refresh, SmokeCall, addresses, now_unix_ms, rfc3339,
};
use crate::plan::{Plan, VerifyCall};
use crate::spec::Transport;
use crate::verify;

/// Time between two looks at a refresh: it takes seconds.
const PAUSE: Duration = Duration::from_millis(100);
/// Sources that are tried, for each call, until the load balancer sends one to the instance that is looked for. With two instances half
/// of them go there, with ten a tenth.
const SOURCES: usize = 64;
/// Distance between the ports that are tried at one address.
const PORT_STEP: u16 = 2;
/// What opens a flow without being a message (RFC 5626 §3.5.1): the edge answers to it, or does not.
const KEEP_ALIVE: &[u8] = b"\r\n\r\n";
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

    fn member(&self, instance: &InstanceStatus) -> Member {
        Member {
            id: instance.id.0.clone(),
            address: Some(instance.address),
            zone: instance.zone.clone(),
            version: instance.version,
            lifecycle: instance.lifecycle,
            healthy: instance.healthy,
            in_progress: self.in_progress(instance),
        }
    }

    /// Transactions that wait for a final response.
    fn in_progress(&self, instance: &InstanceStatus) -> Option<u64> {
        instance.pid?;
        let (status, page) = self.lab.http_get(&instance.id, "/metrics").ok()?;
        let value = page.lines().find_map(|line| line.strip_prefix(IN_PROGRESS))?;
        value.trim().parse().ok().filter(|_| status == 200)
    }

    /// The call from a source whose packets the load balancer sends to one of `instances`, and which of them. None when none is found.
    fn through(
        &self,
        call: &VerifyCall,
        edge: SocketAddr,
        instances: &[String],
    ) -> Result<Option<(VerifyCall, InstanceId)>, LabError> {
        let taken = |address: &IpAddr| call.callee.iter().any(|callee| callee.address.ip() == *address);
        let trunk = self.plan.proxy.trunks.iter().find(|trunk| trunk.name == call.from);
        let ranges = trunk.map(|trunk| trunk.from.as_slice()).unwrap_or_default();
        let hosts: Vec<IpAddr> =
            ranges.iter().flat_map(|range| range.hosts().take(SOURCES)).filter(|address| !taken(address)).collect();
        let first = call.caller.address;
        let ports = (0..).map(|step| first.port().saturating_add(PORT_STEP * step));
        let others = ports.flat_map(|port| hosts.iter().map(move |host| SocketAddr::new(*host, port)));
        for source in std::iter::once(first).chain(others.filter(|source| *source != first)).take(SOURCES) {
            let socket = match self.lab.udp_socket(&call.caller.namespace, source) {
                Ok(socket) => socket,
                Err(error) if is_in_use(&error) => continue,
                Err(error) => return Err(error),
            };
            let sent = socket.send_to(KEEP_ALIVE, edge);
            sent.map_err(|error| LabError::kernel(format!("send from {source} to {edge}"), error))?;
            let target = self.lab.target_of(source, edge)?;
            if let Some(target) = target.filter(|target| instances.contains(&target.0)) {
                let mut call = call.clone();
                call.caller.address = source;
                return Ok(Some((call, target)));
            }
        }
        Ok(None)
    }
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
        let mut plan = self.plan.clone();
        let mut through = Vec::new();
        for call in &mut plan.verify.calls {
            if let Some((moved, instance)) = self.through(call, addresses.ingress, instances)? {
                *call = moved;
                if !through.contains(&instance.0) {
                    through.push(instance.0);
                }
            }
        }
        let report = verify::run(&plan, &addresses, Transport::Udp, self.lab, &rfc3339(now_unix_ms()));
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
