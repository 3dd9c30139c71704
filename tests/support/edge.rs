//! An edge that is deployed to the lab by the command line: its plan, its lab, and what its instances count.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sipedge::plan::{Plan, VerifyCall};
use sipedge::target::lab::{InstanceId, Lab};

use crate::support::{DEADLINE, Project};

/// The carrier bridge, whole: both trunks are the same carrier.
pub const SIX_LINES: &str = "\
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  source: { carrier: twilio }
  destination: { carrier: twilio, domain: your-account.sip.twilio.com }
routes:
  - { from: source, to: destination }
";

/// Time between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One topology of an edge that is up.
pub struct Edge {
    pub project: Project,
    pub lab: Lab,
    pub plan: Plan,
    /// The counters after the deploy's own call.
    before: BTreeMap<InstanceId, Counts>,
}

/// What one instance has counted, by metric name without `sipedge_` and `_total`.
pub type Counts = BTreeMap<String, u64>;

impl Edge {
    /// Deploys the spec; none when this machine cannot have a lab.
    #[track_caller]
    pub fn deploy(test: &str, spec: &str, topology: &str) -> Option<Self> {
        Self::deploy_project(Project::with_lab(test)?, spec, topology)
    }

    /// [`Edge::deploy`] of a project that has what the spec needs.
    #[track_caller]
    pub fn deploy_project(project: Project, spec: &str, topology: &str) -> Option<Self> {
        project.write_spec(spec);
        project.deploy(topology);
        let state = project.state(topology);
        let lab = Lab::attach(&state.join("lab")).expect("attach").expect("the lab is up");
        let plan = fs::read(state.join("plan.json")).expect("the plan can be read");
        let plan = serde_json::from_slice(&plan).expect("the plan is JSON");
        let mut edge = Self { project, lab, plan, before: BTreeMap::new() };
        edge.before = edge.instances().into_iter().map(|id| (id.clone(), edge.totals(&id))).collect();
        Some(edge)
    }

    /// Destroys it and looks for traces.
    #[track_caller]
    pub fn destroy(self) {
        self.project.run(&["destroy"]).expect(0);
        self.project.assert_no_trace();
    }

    /// Where calls go.
    pub fn ingress(&self) -> SocketAddr {
        let address = *self.plan.network.ingress_addresses.first().expect("an ingress address");
        SocketAddr::new(address, self.plan.proxy.listen.ingress_port)
    }

    /// The ends of the spec's route.
    pub fn route(&self) -> &VerifyCall {
        self.plan.verify.calls.first().expect("a route")
    }

    /// The instances that run.
    #[track_caller]
    pub fn instances(&self) -> Vec<InstanceId> {
        let status = self.lab.status().expect("status");
        status.instances.into_iter().filter(|instance| instance.pid.is_some()).map(|instance| instance.id).collect()
    }

    /// What an instance has counted since the deploy.
    #[track_caller]
    pub fn counts(&self, id: &InstanceId) -> Counts {
        let mut counts = self.totals(id);
        if let Some(before) = self.before.get(id) {
            for (name, value) in &mut counts {
                *value -= before.get(name).copied().unwrap_or_default();
            }
        }
        counts
    }

    /// What each instance has counted since the deploy, once `name` amounts to `sum` over all of them: instances publish their numbers
    /// a moment after what they count.
    #[track_caller]
    pub fn counts_with(&self, name: &str, sum: u64) -> BTreeMap<InstanceId, Counts> {
        let begun = Instant::now();
        loop {
            let counts: BTreeMap<_, _> =
                self.instances().into_iter().map(|id| (id.clone(), self.counts(&id))).collect();
            let counted: u64 = counts.values().map(|counts| counts[name]).sum();
            if counted == sum {
                return counts;
            }
            assert!(begun.elapsed() < DEADLINE, "the instances count {counted} {name}, not {sum}: {counts:#?}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    #[track_caller]
    fn totals(&self, id: &InstanceId) -> Counts {
        let (status, page) = self.lab.http_get(id, "/metrics").expect("GET /metrics");
        assert_eq!(status, 200, "GET /metrics from {id}: {page}");
        let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.strip_prefix("sipedge_")?.strip_suffix("_total")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        samples.collect()
    }
}

/// The sum of one count over all instances.
#[track_caller]
pub fn sum(counts: &BTreeMap<InstanceId, Counts>, name: &str) -> u64 {
    counts.values().map(|counts| *counts.get(name).unwrap_or_else(|| panic!("no metric {name}: {counts:?}"))).sum()
}
