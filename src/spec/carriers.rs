//! What sipedge knows of carriers: dated data files, compiled in.

use std::sync::LazyLock;

use ipnet::IpNet;
use serde::Deserialize;

use super::types::Trust;

/// A carrier's published signalling addresses and habits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarrierData {
    /// What `carrier:` says.
    pub name: String,
    /// The carrier's own spelling.
    pub title: String,
    /// Day on which the data was compared to the source, YYYY-MM-DD.
    pub as_of: String,
    /// Where the carrier publishes it.
    pub source: String,
    /// Signalling ranges.
    pub ranges: Vec<RegionRange>,
    /// Ports by transport.
    pub ports: Ports,
    /// The domain that all customers send calls to, when there is one.
    #[serde(default)]
    pub domain: Option<String>,
    /// What the domains of its customers end in.
    pub domain_suffixes: Vec<String>,
    /// The domain of the examples, which nobody can reach.
    #[serde(default)]
    pub placeholder_domain: Option<String>,
    /// What its word is taken for.
    #[serde(default)]
    pub trust: Vec<Trust>,
    /// New calls per second that it takes from one source address.
    #[serde(default)]
    pub max_cps: Option<u32>,
    /// Where in its console the edge's addresses are admitted.
    pub whitelist: String,
    /// Where in its console calls are pointed to the edge.
    pub origination: String,
    /// What else to know.
    pub notes: Vec<String>,
}

/// A range and the region that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionRange {
    /// The range.
    pub range: IpNet,
    /// The carrier's name of the region.
    pub region: String,
}

/// Ports by transport.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// UDP.
    pub udp: u16,
    /// TCP.
    pub tcp: u16,
    /// TLS.
    pub tls: u16,
}

/// One file per carrier.
const FILES: [&str; 2] = [include_str!("carriers/telnyx.yaml"), include_str!("carriers/twilio.yaml")];

static ALL: LazyLock<Vec<CarrierData>> =
    LazyLock::new(|| FILES.iter().filter_map(|file| serde_yaml::from_str(file).ok()).collect());

/// All carriers, by name.
pub fn all() -> &'static [CarrierData] {
    &ALL
}

/// The carrier of this name.
pub fn find(name: &str) -> Option<&'static CarrierData> {
    all().iter().find(|carrier| carrier.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_sound() {
        assert_eq!(all().len(), FILES.len(), "a carrier's file does not parse");
        assert!(all().is_sorted_by_key(|carrier| &carrier.name));
        for carrier in all() {
            let mut date = carrier.as_of.split('-').map(str::parse::<u32>);
            assert!(matches!(date.next(), Some(Ok(2024..))) && date.all(|part| part.is_ok()), "{}", carrier.name);
            assert!(!carrier.ranges.is_empty());
            for range in &carrier.ranges {
                assert_eq!(range.range, range.range.trunc(), "{} has host bits", range.range);
            }
        }
    }

    #[test]
    fn twilio_has_its_eight_regions() {
        assert_eq!(find("twilio").unwrap().ranges.len(), 8);
    }
}
