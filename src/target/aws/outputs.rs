//! What the root modules say of what they made (`outputs.tf` of both).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Outputs of either root module, those that sipedge reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Elastic IPs where calls come in.
    pub ingress_addresses: Vec<IpAddr>,
    /// Elastic IPs where calls go out from.
    pub egress_addresses: Vec<IpAddr>,
    /// The autoscaling group.
    pub group_name: String,
    /// The launch template, `lt-…`.
    pub launch_template_id: String,
    /// Its newest version.
    pub launch_template_version: u64,
    /// Names of the alarms that a bad version sets off.
    #[serde(default)]
    pub refresh_alarm_names: Vec<String>,
    /// Target groups by listener; none for single-ec2.
    #[serde(default)]
    pub target_group_arns: BTreeMap<String, String>,
    /// Names in DNS, when the spec has a zone.
    #[serde(default)]
    pub dns_names: Value,
    /// Ports and calls that the egress addresses carry.
    #[serde(default)]
    pub capacity: Value,
}

impl Outputs {
    /// From what `terraform output` says. The error says what is missing.
    pub fn read(all: &super::terraform::Outputs) -> Result<Self, String> {
        let object: serde_json::Map<String, Value> = all.clone().into_iter().collect();
        serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())
    }
}
