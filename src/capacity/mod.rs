//! How many calls which instances carry: worked out from figures that were measured, with their date.
//!
//! Calls in progress are calls per second times their duration (Little's law). What a call costs is the processor's time for its messages;
//! one that is answered takes no memory at the edge, one that rings takes some.

mod table;

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::{Topology, instance_month_cents};
use crate::spec::instance_types::{self, InstanceType};

pub use table::{answer_text, types_text};

/// What was measured, written by `bench/table.py --figures`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Day of the measurement, YYYY-MM-DD.
    pub as_of: String,
    /// Commit of the proxy.
    pub commit: String,
    /// Where it was measured.
    pub machine: String,
    /// Calls per second at which the processor's time was measured.
    pub rate_cps: u32,
    /// Processor time per call in microseconds, of proxy and kernel together: smallest, median and largest of the runs.
    pub cpu_us_per_call: Spread,
    /// Memory of a call that rings, in bytes.
    pub ringing_call_bytes: u32,
    /// Memory at that rate, in MiB.
    pub memory_mib: u32,
}

/// A figure of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

/// The figures that this version of sipedge was measured to have.
pub fn figures() -> Option<&'static Figures> {
    static FIGURES: LazyLock<Option<Figures>> =
        LazyLock::new(|| serde_json::from_str(include_str!("figures.json")).ok());
    FIGURES.as_ref()
}

/// Percent of a processor at which a group grows: `scaling.cpu` unless the spec says otherwise.
const BUSY_PERCENT: f64 = 70.0;

/// How much slower a vCPU of EC2 is taken to be than the processor of the measurement: nobody has measured it there, and a vCPU of x86-64 is
/// one of two threads of a core.
const SLOWER: f64 = 2.0;

/// How long a call rings at the most, which is what memory is counted for: the default of `timers.invite`.
const RINGING: Duration = Duration::from_secs(30);

/// Memory of the system around the proxy, in MiB: kernel, systemd, SSM agent, and as much to spare.
const SYSTEM_MIB: f64 = 400.0;

/// Zones of an edge unless the spec names them.
const ZONES: u32 = 3;

/// Instances of a load-balanced edge at the least, unless the spec says otherwise.
const LEAST_INSTANCES: u32 = 2;

/// Instances at the most that are suggested.
const MOST_INSTANCES: u32 = 100;

/// Most calls per second that may be asked for.
pub const MOST_CPS: f64 = 10_000_000.0;

/// Longest call that may be asked for, in seconds: a day.
pub const MOST_SECONDS: f64 = 86_400.0;

/// What an instance of a type carries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Carries {
    /// Its name.
    pub instance_type: &'static str,
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Percent of each that is used: the baseline of types with CPU credits, 70 of the others.
    pub used_percent: f64,
    /// New calls per second that it carries for good.
    pub cps: f64,
    /// What bounds it.
    pub bound: Bound,
    /// What it costs in a month in us-east-1, in cents.
    pub month_cents: Option<u64>,
}

/// What bounds an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The processor's time for messages.
    Processor,
    /// The memory of calls that ring, if all of them ring for as long as they may.
    Memory,
}

/// An edge that carries what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Choice {
    /// The topology.
    pub topology: Topology,
    /// Type of its instances.
    pub instance_type: &'static str,
    /// How many.
    pub instances: u32,
    /// New calls per second that all of them carry.
    pub cps: f64,
    /// New calls per second that are carried when the zone with most instances is lost; none for one instance.
    pub cps_without_a_zone: Option<f64>,
    /// What the instances cost in a month in us-east-1, in cents; the plan tells the rest.
    pub month_cents: u64,
}

/// What was asked for, and what carries it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// New calls per second.
    pub cps: f64,
    /// Their duration in seconds.
    pub duration_s: f64,
    /// Calls in progress at a time.
    pub calls: f64,
    /// Packets per second, in and out together.
    pub packets_per_s: f64,
    /// The cheapest edge of each topology that carries it; none for a topology that cannot.
    pub choices: Vec<Choice>,
    /// What it was worked out from.
    pub figures: Figures,
}

/// Packets of a call, in and out: INVITE, 100, 180, 200, ACK, BYE, 200, each received and sent, but for the 100s.
const PACKETS_PER_CALL: f64 = 14.0;

/// What an instance of each type of the image's architecture carries, cheapest first.
#[must_use]
pub fn types(figures: &Figures) -> Vec<Carries> {
    let of_image = instance_types::all().iter().filter(|known| known.arch == "x86_64");
    let mut all: Vec<Carries> = of_image.map(|known| carries(known, figures)).collect();
    all.sort_by_key(|carries| (carries.month_cents.unwrap_or(u64::MAX), carries.instance_type));
    all
}

fn carries(known: &'static InstanceType, figures: &Figures) -> Carries {
    let used_percent = known.baseline_percent.map_or(BUSY_PERCENT, f64::from);
    let us_per_s = f64::from(known.vcpu) * 1e6 * used_percent / 100.0;
    let by_processor = us_per_s / (figures.cpu_us_per_call.max * SLOWER);
    let free_mib = f64::from(known.memory_gib) * 1024.0 - SYSTEM_MIB - f64::from(figures.memory_mib);
    let ringing = free_mib.max(0.0) * 1_048_576.0 / f64::from(figures.ringing_call_bytes.max(1));
    let by_memory = ringing / RINGING.as_secs_f64();
    let bound = if by_processor <= by_memory { Bound::Processor } else { Bound::Memory };
    Carries {
        instance_type: &known.name,
        vcpu: known.vcpu,
        used_percent,
        cps: by_processor.min(by_memory),
        bound,
        month_cents: instance_month_cents(&known.name),
    }
}

/// The cheapest edge of each topology that carries `cps` calls per second of `duration_s` seconds.
#[must_use]
pub fn answer(figures: &Figures, cps: f64, duration_s: f64) -> Answer {
    let types = types(figures);
    let cheapest =
        |choices: Vec<Choice>| choices.into_iter().min_by_key(|choice| (choice.month_cents, choice.instances));
    let single = types.iter().filter_map(|carries| single(carries, cps)).collect();
    let balanced = types.iter().filter_map(|carries| balanced(carries, cps)).collect();
    Answer {
        cps,
        duration_s,
        calls: cps * duration_s,
        packets_per_s: cps * PACKETS_PER_CALL,
        choices: [cheapest(single), cheapest(balanced)].into_iter().flatten().collect(),
        figures: figures.clone(),
    }
}

fn single(carries: &Carries, cps: f64) -> Option<Choice> {
    let carried = (carries.cps >= cps).then_some(carries)?;
    Some(Choice {
        topology: Topology::SingleEc2,
        instance_type: carried.instance_type,
        instances: 1,
        cps: carried.cps,
        cps_without_a_zone: None,
        month_cents: carried.month_cents?,
    })
}

/// As few as carry it when the zone with most instances is lost.
fn balanced(carries: &Carries, cps: f64) -> Option<Choice> {
    let left = |instances: u32| f64::from(instances - instances.div_ceil(ZONES)) * carries.cps;
    let instances = (LEAST_INSTANCES..=MOST_INSTANCES).find(|instances| left(*instances) >= cps)?;
    Some(Choice {
        topology: Topology::LoadBalanced,
        instance_type: carries.instance_type,
        instances,
        cps: f64::from(instances) * carries.cps,
        cps_without_a_zone: Some(left(instances)),
        month_cents: carries.month_cents? * u64::from(instances),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Figures {
        Figures {
            as_of: "2026-11-21".to_owned(),
            commit: "0123abc".to_owned(),
            machine: "two cores".to_owned(),
            rate_cps: 1000,
            cpu_us_per_call: Spread { min: 40.0, median: 45.0, max: 50.0 },
            ringing_call_bytes: 1500,
            memory_mib: 40,
        }
    }

    fn of(name: &str) -> Carries {
        types(&measured()).into_iter().find(|carries| carries.instance_type == name).expect("a type")
    }

    #[test]
    fn the_figures_of_this_version_are_there() {
        let figures = figures().expect("figures.json is as it should be");
        assert!(figures.cpu_us_per_call.min > 0.0 && figures.cpu_us_per_call.min <= figures.cpu_us_per_call.max);
        assert!(figures.ringing_call_bytes > 0 && figures.memory_mib > 0 && figures.rate_cps > 0, "{figures:?}");
    }

    #[test]
    fn a_type_with_credits_is_taken_at_its_baseline_and_another_at_where_a_group_grows() {
        // Two vCPUs, and 100 µs a call there: 20 % of both carry 4,000 calls a second, 70 % 14,000.
        for (name, cps, used_percent, bound) in [
            ("t3.small", 4_000.0, 20.0, Bound::Processor),
            ("t3.micro", 2_000.0, 10.0, Bound::Processor),
            ("m6i.large", 14_000.0, 70.0, Bound::Processor),
        ] {
            let carries = of(name);
            assert_eq!(
                (carries.cps.round(), carries.used_percent, carries.bound),
                (cps, used_percent, bound),
                "{name}"
            );
        }
        let heavy = Figures { ringing_call_bytes: 18_000, ..measured() };
        let small = types(&heavy).into_iter().find(|carries| carries.instance_type == "t3.small").expect("a type");
        assert_eq!((small.cps.round(), small.bound), (3_122.0, Bound::Memory));
    }

    #[test]
    fn the_loss_of_a_zone_is_borne() {
        for cps in [0.1, 25.0, 3_000.0, 9_000.0, 60_000.0] {
            let answer = answer(&measured(), cps, 180.0);
            assert!((answer.calls - cps * 180.0).abs() < 1e-6);
            let balanced = answer.choices.iter().find(|choice| choice.topology == Topology::LoadBalanced);
            let balanced = balanced.expect("a group carries it");
            assert!(balanced.cps_without_a_zone.expect("a group") >= cps, "{balanced:?}");
            assert!(balanced.instances >= LEAST_INSTANCES);
        }
    }

    #[test]
    fn what_no_instance_carries_is_not_promised() {
        let answer = answer(&measured(), 50_000.0, 60.0);
        assert!(answer.choices.iter().all(|choice| choice.topology != Topology::SingleEc2), "{answer:?}");
        let nobody = super::answer(&measured(), 10_000_000.0, 60.0);
        assert!(nobody.choices.is_empty(), "{nobody:?}");
    }
}
