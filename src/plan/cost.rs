//! What an edge costs in a month, by item, from a dated table of list prices.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{AwsPlan, Plan, Topology};
use crate::spec::{Count, Spec, day_of, days_since_epoch};

/// Hours of a month, as AWS's own calculator counts them: 365 days of 24 hours by 12.
const MONTH_HOURS: f64 = 730.0;

/// Days after which prices should be compared to their source again: AWS changes few of them in a year.
const STALE_DAYS: u64 = 365;

/// Alarms that two policies of target tracking make: one for more and one for fewer each.
const TRACKING_ALARMS: u32 = 4;

/// Alarms of a single-ec2 edge, of one metric each: status check, not ready, none in service, CPU, CPU credits.
const SINGLE_ALARMS: u32 = 5;

/// Metrics that detailed monitoring of an instance is charged for (Amazon CloudWatch pricing, example of EC2 detailed monitoring).
const MONITORING_METRICS: u32 = 7;

/// What a topology costs in a month of 730 hours, in US dollars without tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The items, in the order of the path of a call.
    pub items: Vec<CostItem>,
    /// With as few instances as there may be, without traffic, in cents.
    pub least_cents: u64,
    /// With as many instances as there may be, without traffic, in cents.
    pub most_cents: u64,
    /// What traffic costs on top, as sentences.
    pub traffic: Vec<String>,
    /// Whose prices: the region's, or those of the region that stands in for it.
    pub prices_of: String,
    /// Prices that are not the region's own, as sentences.
    pub estimated: Vec<String>,
    /// How far the figures have been compared with anything, as a sentence.
    #[serde(default)]
    pub compared: String,
    /// Day of the prices, YYYY-MM-DD.
    pub as_of: String,
    /// Where AWS publishes them.
    pub sources: Vec<String>,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostItem {
    /// What it is, such as `NAT gateway`.
    pub name: String,
    /// How it comes about: `2 × 730 h × $0.045`.
    pub figures: String,
    /// With as few instances as there may be, in cents.
    pub least_cents: u64,
    /// With as many, in cents.
    pub most_cents: u64,
}

/// A warning when the prices for `spec` are older than a year at `now`.
pub fn stale_prices(spec: &Spec, now: SystemTime) -> Vec<String> {
    let Some((prices, _)) = of_region(&spec.aws.region) else { return Vec::new() };
    let old = day_of(&prices.as_of).is_some_and(|day| days_since_epoch(now) > day + STALE_DAYS);
    let message = format!(
        "the prices of {} are as of {}; compare them with {}",
        prices.region,
        prices.as_of,
        TABLE.sources.join(", ")
    );
    if old { vec![message] } else { Vec::new() }
}

/// What an instance of this type costs in a month in the first region of the table, in cents.
pub(crate) fn instance_month_cents(instance_type: &str) -> Option<u64> {
    TABLE.regions.first()?.instance_hour.get(instance_type).map(|price| in_cents(price * MONTH_HOURS))
}

/// What `plan` costs.
pub(super) fn cost(plan: &Plan, aws: &AwsPlan) -> Option<Cost> {
    let (prices, own) = of_region(&aws.region)?;
    let mut estimated = Vec::new();
    if !own {
        estimated.push(format!(
            "sipedge has no prices of {}: those of {} stand in, and it may cost a third more",
            aws.region, prices.region
        ));
    }
    let instance = match prices.instance_hour.get(&aws.instance_type) {
        Some(price) => *price,
        None => {
            let first = TABLE.regions.first()?;
            estimated.push(format!("{} has the price of {}", aws.instance_type, first.region));
            *first.instance_hour.get(&aws.instance_type)?
        }
    };
    let zones = u32::try_from(plan.network.zones.len()).unwrap_or(1);
    let (least, most) = (plan.scaling.min, plan.scaling.max);
    let mut items = Vec::new();
    let mut add = |name: &str, least: u32, most: u32, each: f64, figures: String| {
        let cents = |count: u32| in_cents(f64::from(count) * each);
        let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
        items.push(CostItem {
            name: name.to_owned(),
            figures: format!("{count} × {figures}"),
            least_cents: cents(least),
            most_cents: cents(most),
        });
    };
    let hourly = |price: f64| (price * MONTH_HOURS, format!("{MONTH_HOURS} h × ${price}"));
    let mut ingress = 1;
    let mut egress = 0;
    if let Some(way) = aws.egress {
        let (each, figures) = hourly(prices.load_balancer_hour);
        add("network load balancer", 1, 1, each, figures);
        ingress = zones;
        // In a VPC that is there already the gateways are there too.
        if aws.vpc.is_none() {
            let gateways = if way.gateways == Count::One { 1 } else { zones };
            egress = gateways * way.addresses;
            let (each, figures) = hourly(prices.nat_gateway_hour);
            add("NAT gateway", gateways, gateways, each, figures);
        }
    }
    let (each, figures) = hourly(prices.address_hour);
    add("public IPv4 address", ingress + egress, ingress + egress, each, figures);
    let (each, figures) = hourly(instance);
    add(&format!("instance {}", aws.instance_type), least, most, each, figures);
    let volume = f64::from(aws.volume_gib) * prices.volume_gib_month;
    add("volume gp3", least, most, volume, format!("{} GiB × ${}", aws.volume_gib, prices.volume_gib_month));
    let everywhere = &TABLE.everywhere;
    let metrics = f64::from(MONITORING_METRICS) * everywhere.metric_month;
    let figures = format!("{MONITORING_METRICS} metrics × ${}", everywhere.metric_month);
    add("detailed monitoring", least, most, metrics, figures);
    let alarms = alarm_metrics(plan, aws);
    add("metric of an alarm", alarms, alarms, prices.alarm_month, format!("${}", prices.alarm_month));
    add("dashboard", 1, 1, everywhere.dashboard_month, format!("${}", everywhere.dashboard_month));
    let mut traffic =
        vec![format!("${} for each GB to the Internet, after the first 100 GB of an account", prices.data_out_gb)];
    if let Some(way) = aws.egress {
        traffic.push(format!("${} for each GB through the NAT gateway", prices.nat_gateway_gb));
        traffic.push(format!(
            "${} for each hour and capacity unit of the load balancer: 400 new UDP flows per second, 50,000 flows, or 1 GB",
            prices.load_balancer_unit_hour
        ));
        traffic.push(format!(
            "${} for each GB and direction between zones: the load balancer takes instances of every zone, and {}",
            everywhere.zone_gb,
            match way.gateways {
                Count::One => "the NAT gateway is in one",
                Count::PerZone => "each zone has its NAT gateway",
            }
        ));
    }
    if let Some(price) = surplus_price(&aws.instance_type) {
        traffic.push(format!(
            "${price} for each hour and vCPU of {} above its share, once its credits are used up: it is not slowed down",
            aws.instance_type
        ));
    }
    Some(Cost {
        least_cents: items.iter().map(|item| item.least_cents).sum(),
        most_cents: items.iter().map(|item| item.most_cents).sum(),
        items,
        traffic,
        prices_of: prices.region.clone(),
        estimated,
        compared: prices.compared(),
        as_of: prices.as_of.clone(),
        sources: TABLE.sources.clone(),
    })
}

/// Metrics of all alarms: an alarm over several listeners looks at one of each, and each is charged for.
fn alarm_metrics(plan: &Plan, aws: &AwsPlan) -> u32 {
    if plan.topology == Topology::SingleEc2 {
        return SINGLE_ALARMS;
    }
    let listeners = u32::try_from(plan.network.listeners.len()).unwrap_or(u32::MAX);
    // Unhealthy hosts, no healthy host, and, where there are two at least, few healthy hosts; CPU; room to grow.
    let over_listeners = if plan.scaling.min < 2 { 2 } else { 3 };
    over_listeners * listeners + 1 + u32::from(aws.alarms.desired.is_some()) + TRACKING_ALARMS
}

/// What a vCPU-hour beyond the credits costs; none for types without credits, which are not slowed down either.
fn surplus_price(instance_type: &str) -> Option<f64> {
    let family = instance_type.split('.').next().filter(|family| family.starts_with('t'))?;
    Some(if family.ends_with('g') { TABLE.everywhere.surplus_hour_arm } else { TABLE.everywhere.surplus_hour })
}

impl Prices {
    fn compared(&self) -> String {
        match self.confirmed.as_slice() {
            [] => "None of these figures was compared with AWS's price list or confirmed by another source".to_owned(),
            confirmed => format!(
                "Confirmed by another source: {}; the other figures were not, and none was compared with AWS's price list",
                confirmed.join(", ")
            ),
        }
    }
}

/// `cents` as dollars.
pub(crate) fn dollars(cents: u64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// The prices of `region`, or those that stand in for it; `true`: they are its own.
fn of_region(region: &str) -> Option<(&'static Prices, bool)> {
    let own = TABLE.regions.iter().find(|prices| prices.region == region).map(|prices| (prices, true));
    own.or_else(|| TABLE.regions.first().map(|prices| (prices, false)))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "prices are positive and small")]
fn in_cents(dollars: f64) -> u64 {
    (dollars * 100.0).round() as u64
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    sources: Vec<String>,
    everywhere: Everywhere,
    regions: Vec<Prices>,
}

/// List prices that are the same in all regions of the table, in US dollars.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Everywhere {
    metric_month: f64,
    dashboard_month: f64,
    zone_gb: f64,
    surplus_hour: f64,
    surplus_hour_arm: f64,
}

/// List prices of one region, in US dollars.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    region: String,
    as_of: String,
    /// Figures that another source than the writer of the table has confirmed, by what they are for.
    confirmed: Vec<String>,
    load_balancer_hour: f64,
    load_balancer_unit_hour: f64,
    nat_gateway_hour: f64,
    nat_gateway_gb: f64,
    address_hour: f64,
    volume_gib_month: f64,
    data_out_gb: f64,
    alarm_month: f64,
    instance_hour: BTreeMap<String, f64>,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_yaml::from_str(include_str!("data/prices.yaml")).unwrap_or_default());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::instance_types;

    #[test]
    fn the_table_is_read_and_has_every_instance_type() {
        let first = TABLE.regions.first().expect("the file does not parse");
        for known in instance_types::all() {
            assert!(first.instance_hour.contains_key(&known.name), "{} has no price in {}", known.name, first.region);
        }
        for prices in &TABLE.regions {
            assert!(day_of(&prices.as_of).is_some(), "{}: {}", prices.region, prices.as_of);
            for (name, price) in &prices.instance_hour {
                assert!(instance_types::find(name).is_some(), "{name} is no known type");
                assert!((0.001..10.0).contains(price), "{name}: {price}");
            }
        }
    }

    #[test]
    fn cents_are_written_as_dollars() {
        assert_eq!((dollars(5), dollars(1_518), in_cents(730.0 * 0.0208)), ("$0.05".into(), "$15.18".into(), 1_518));
    }
}
