//! Names of regions.

use std::net::ToSocketAddrs;

/// Regions of the partitions aws, aws-cn and aws-us-gov (AWS, "AWS Regions and Availability Zones", 2026-11).
const REGIONS: [&str; 40] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "cn-north-1",
    "cn-northwest-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-west-1",
    "us-west-2",
    "us-iso-east-1",
    "us-isob-east-1",
];

/// Most edits between a mistyped region and the one that is suggested.
const EDITS: usize = 3;

/// Whether a region is there: it is in the list, or, since AWS opens regions more often than sipedge is released, its EC2 endpoint has
/// an address. `ask`: whether a name server may be asked, which happens for regions that are not in the list alone.
pub(crate) fn exists(region: &str, ask: bool) -> bool {
    if REGIONS.contains(&region) || !ask {
        return REGIONS.contains(&region);
    }
    let well_formed = region.split('-').count() >= 3
        && region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && region.ends_with(|last: char| last.is_ascii_digit());
    well_formed
        && (format!("ec2.{region}.amazonaws.com"), 443).to_socket_addrs().is_ok_and(|mut found| found.next().is_some())
}

/// The region that is written most like `region`.
pub(crate) fn nearest(region: &str) -> Option<String> {
    let (edits, name) = REGIONS.iter().map(|known| (strsim::damerau_levenshtein(region, known), *known)).min()?;
    (edits <= EDITS).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_region_is_found() {
        assert_eq!(nearest("us-esat-1").as_deref(), Some("us-east-1"));
        assert_eq!(nearest("eu-wst-2").as_deref(), Some("eu-west-2"));
        assert_eq!(nearest("the moon"), None);
    }

    #[test]
    fn known_regions_are_there_and_malformed_ones_are_not() {
        assert!(exists("eu-central-1", false));
        assert!(!exists("eu central 1", true));
        assert!(!exists("us-east-1a", true));
    }
}
