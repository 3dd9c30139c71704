//! What sipedge knows of EC2 instance types: a dated data file, compiled in.

use std::sync::LazyLock;

use serde::Deserialize;

/// Figures of an EC2 instance type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceType {
    /// Its name, such as `t3.small`.
    pub name: String,
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Percent of each vCPU that a type with CPU credits has for good; none for a type without, which has all of it.
    #[serde(default)]
    pub baseline_percent: Option<u32>,
    /// Memory in GiB.
    pub memory_gib: u32,
    /// `x86_64` or `arm64`: the image has to be of the same.
    pub arch: String,
    /// Network bandwidth in Gbit/s, at most.
    pub network_gbps: f32,
    /// Whether it has that for a time only.
    pub burst: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "as_of")]
    _as_of: String,
    #[serde(rename = "source")]
    _source: String,
    types: Vec<InstanceType>,
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| serde_yaml::from_str(include_str!("data/instance-types.yaml")).unwrap_or_default());

/// All types that an edge may run on.
pub fn all() -> &'static [InstanceType] {
    &TABLE.types
}

/// The type of this name.
pub fn find(name: &str) -> Option<&'static InstanceType> {
    all().iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_sound() {
        assert!(all().len() > 15, "the file does not parse");
        for (index, known) in all().iter().enumerate() {
            assert!(known.vcpu > 0 && known.memory_gib > 0 && known.network_gbps > 0.0, "{known:?}");
            assert!(["x86_64", "arm64"].contains(&known.arch.as_str()), "{known:?}");
            // AWS marks its own processors with a g after the generation.
            let family = known.name.split('.').next().unwrap_or_default();
            assert_eq!(family.ends_with('g'), known.arch == "arm64", "{known:?}");
            assert_eq!(family.starts_with('t'), known.baseline_percent.is_some(), "{known:?}");
            assert!(!all()[..index].iter().any(|earlier| earlier.name == known.name), "{known:?} stands twice");
        }
        assert_eq!(find("t3.small").map(|known| (known.vcpu, known.memory_gib)), Some((2, 2)));
    }
}
