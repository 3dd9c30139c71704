//! The artefacts of a plan: the same bytes from the same input, readable by who reads them, and as the golden files have them.
//!
//! `UPDATE_GOLDEN=1` writes `tests/golden/` anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use sipedge::plan::{
    ELASTIC_IP_ALLOCATION, INGRESS_ADDRESS, Plan, PlanError, State, TargetKind, Topology, USER_DATA_LIMIT, difference,
    picture, plan, render,
};
use sipedge::spec::{Loaded, Spec};
use sipedge_proxy::config::{Advertise, Config, SecretRef, Target};

const TOPOLOGIES: [Topology; 2] = [Topology::SingleEc2, Topology::LoadBalanced];
const TARGETS: [TargetKind; 2] = [TargetKind::Aws, TargetKind::Lab];

const BRIDGE: &str = include_str!("../examples/carrier-bridge.yaml");
const BY_HAND: &str = include_str!("../examples/by-hand.yaml");
const FAILOVER: &str = include_str!("../examples/failover.yaml");
const PRODUCTION: &str = include_str!("../examples/production.yaml");
const TLS: &str = include_str!("../examples/tls.yaml");

fn load(text: &str) -> Loaded {
    Spec::parse("sipedge.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The bridge with these sources, in an account that admits many rules.
fn many_ranges(ranges: &[String]) -> String {
    BRIDGE
        .replace("source: { carrier: twilio }", &format!("source: {{ from: [{}] }}", ranges.join(", ")))
        .replace("region: us-east-1", "region: us-east-1, rules_quota: 1000")
}

fn plans() -> impl Iterator<Item = (&'static str, Plan)> {
    let examples = [
        ("carrier-bridge", BRIDGE),
        ("by-hand", BY_HAND),
        ("failover", FAILOVER),
        ("production", PRODUCTION),
        ("tls", TLS),
    ];
    examples.into_iter().flat_map(|(name, text)| {
        let loaded = load(text);
        TOPOLOGIES
            .into_iter()
            .flat_map(|topology| TARGETS.map(|target| (topology, target)))
            .map(move |(topology, target)| (name, plan(&loaded, topology, target).unwrap()))
    })
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for ((name, first), (_, second)) in plans().zip(plans()) {
        let bytes = |plan: &Plan| (serde_json::to_vec(plan).unwrap(), render(plan, None));
        assert_eq!(bytes(&first), bytes(&second), "{name} {} {}", first.topology, first.target);
        let read_back: Plan = serde_json::from_slice(&bytes(&first).0).unwrap();
        assert_eq!(read_back, first);
    }
}

#[test]
fn artefacts_are_the_golden_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut failures = Vec::new();
    let mut written = BTreeSet::new();
    for (name, plan) in plans() {
        let folder = root.join(format!("{name}-{}-{}", plan.topology, plan.target));
        let text = render(&plan, None);
        let files = plan.artefacts.iter().map(|(name, content)| (name.as_str(), content)).chain([("plan.txt", &text)]);
        for (file, content) in files {
            let path = folder.join(file);
            written.insert(path.clone());
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, content).unwrap();
            }
            match fs::read_to_string(&path) {
                Ok(golden) if golden == *content => {}
                Ok(_) => failures.push(format!("{} differs:\n{content}", path.display())),
                Err(error) => failures.push(format!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display())),
            }
        }
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if !written.contains(&path) {
                failures.push(format!("{} is written by no plan", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn user_data_is_a_configuration_once_the_address_is_filled_in() {
    for (name, plan) in plans() {
        let filled =
            plan.user_data.replace(INGRESS_ADDRESS, "203.0.113.10").replace(ELASTIC_IP_ALLOCATION, "eipalloc-1");
        assert!(filled.starts_with("#sipedge-user-data 1\n"), "{filled}");
        assert!(
            !filled.contains("${") && !filled.contains("%{"),
            "{name}: more to fill in than the address and the allocation:\n{filled}"
        );
        let config: Config = serde_yaml::from_str(&filled).unwrap();
        let mut expected = plan.proxy.clone();
        if expected.advertise == Advertise::Host(INGRESS_ADDRESS.into()) {
            expected.advertise = Advertise::Host("203.0.113.10".into());
        }
        if let Some(allocation) = expected.cloud.as_mut().and_then(|cloud| cloud.elastic_ip.as_mut()) {
            assert_eq!(
                (allocation.as_str(), plan.topology, plan.target),
                (ELASTIC_IP_ALLOCATION, Topology::SingleEc2, TargetKind::Aws)
            );
            "eipalloc-1".clone_into(allocation);
        }
        assert_eq!(config, expected);
        assert!(plan.user_data.len() <= USER_DATA_LIMIT);
    }
}

#[test]
fn user_data_over_the_limit_is_refused_with_size_and_reason() {
    let ranges: Vec<String> = (0..950).map(|n| format!("20.{}.{}.0/24", n / 250, n % 250)).collect();
    let text = many_ranges(&ranges) + "listen: { tcp: false }\n";
    let error = plan(&load(&text), Topology::LoadBalanced, TargetKind::Aws).unwrap_err();
    let PlanError::UserDataTooLarge { bytes } = error else { panic!("{error}") };
    assert!(bytes > USER_DATA_LIMIT);
    let said = error.to_string();
    assert!(said.contains(&bytes.to_string()) && said.contains("16384") && said.contains("EC2"), "{said}");
}

#[test]
fn the_lab_runs_out_of_documentation_addresses_with_a_reason() {
    let ranges: Vec<String> = (0..40).map(|n| format!("20.0.{n}.0/24")).collect();
    let loaded = load(&many_ranges(&ranges));
    let error = plan(&loaded, Topology::LoadBalanced, TargetKind::Lab).unwrap_err();
    assert!(matches!(error, PlanError::DocumentationSpace { .. }), "{error}");
    assert!(plan(&loaded, Topology::LoadBalanced, TargetKind::Aws).is_ok());
}

#[test]
fn in_the_lab_no_address_is_a_real_one() {
    let documentation: Vec<ipnet::IpNet> =
        ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"].map(|range| range.parse().unwrap()).to_vec();
    let texts = [
        BRIDGE.to_owned(),
        BY_HAND.to_owned(),
        FAILOVER.to_owned(),
        BRIDGE.replace("carrier: twilio, domain: your-account.sip.twilio.com", "targets: [\"sip:20.1.2.3:5070\"]"),
        BRIDGE.replace("source: { carrier: twilio }", "source: { from: [20.0.0.0/16, 192.0.2.0/29, 203.0.113.0/28] }"),
    ];
    for text in texts {
        let plan = plan(&load(&text), Topology::LoadBalanced, TargetKind::Lab).unwrap();
        let inside = |address: IpAddr| documentation.iter().any(|range| range.contains(&address));
        let mut used: Vec<ipnet::Ipv4Net> = Vec::new();
        for range in plan.carriers.iter().flat_map(|carrier| &carrier.ranges) {
            let ipnet::IpNet::V4(range) = range.used else { panic!("{range:?}") };
            assert!(
                inside(range.network().into())
                    && !used.iter().any(|other| other.contains(&range) || range.contains(other))
            );
            assert!(!plan.network.ingress_addresses.iter().chain(&plan.network.egress_addresses).any(|address| {
                match address {
                    IpAddr::V4(address) => range.contains(address),
                    IpAddr::V6(_) => false,
                }
            }));
            used.push(range);
        }
        for carrier in &plan.carriers {
            for address in carrier.domains.iter().flat_map(|domain| &domain.addresses) {
                assert!(carrier.ranges.iter().any(|range| range.used.contains(address)), "{carrier:?}");
            }
        }
        for call in &plan.verify.calls {
            assert!(inside(call.caller.address.ip()) && !call.callee.is_empty(), "{call:?}");
            assert!(
                call.callee.iter().all(|callee| inside(callee.address.ip()) && callee.address != call.caller.address),
                "{call:?}"
            );
            let source = plan.proxy.trunks.iter().find(|trunk| trunk.name == call.from).unwrap();
            assert!(source.from.iter().any(|range| range.contains(&call.caller.address.ip())), "{call:?}");
        }
    }
}

#[test]
fn an_address_target_keeps_its_place_in_the_range_that_stands_in() {
    let text = BRIDGE.replace(
        "carrier: twilio, domain: your-account.sip.twilio.com",
        "from: [20.1.2.0/29], targets: [\"sip:20.1.2.3:5070\"]",
    );
    let plan = plan(&load(&text), Topology::LoadBalanced, TargetKind::Lab).unwrap();
    let range = plan.carriers.iter().find(|carrier| carrier.name == "destination").unwrap().ranges[0].used;
    let call = &plan.verify.calls[0];
    let ipnet::IpNet::V4(range) = range else { panic!("{range}") };
    assert_eq!(call.callee[0].address.to_string(), format!("{}:5070", range.hosts().nth(2).unwrap()));
    assert_eq!(call.request_uri_hosts, [call.callee[0].address.to_string()]);
}

#[test]
fn on_aws_ranges_are_the_carriers_own_and_addresses_are_not_known() {
    let plan = plan(&load(BRIDGE), Topology::LoadBalanced, TargetKind::Aws).unwrap();
    assert!(plan.carriers.iter().flat_map(|carrier| &carrier.ranges).all(|range| range.real == range.used));
    assert!(plan.network.ingress_addresses.is_empty() && plan.network.egress_addresses.is_empty());
    assert_eq!(plan.proxy.secrets.token_keys, SecretRef::Ssm("/sipedge/twilio-bridge/load-balanced/token-keys".into()));
    assert!(plan.warnings.iter().any(|warning| warning.contains("examples")), "{:?}", plan.warnings);
}

#[test]
fn a_range_admits_to_one_trunk_alone() {
    for (name, plan) in plans() {
        let mut seen = BTreeSet::new();
        for range in plan.proxy.trunks.iter().flat_map(|trunk| &trunk.from) {
            assert!(seen.insert(range.to_string()), "{name}: {range} stands in two trunks");
        }
    }
    let plan = plan(&load(BRIDGE), Topology::SingleEc2, TargetKind::Lab).unwrap();
    let trunk = |name: &str| plan.proxy.trunks.iter().find(|trunk| trunk.name == name).unwrap();
    assert_eq!((trunk("source").from.len(), trunk("destination").from.len()), (8, 0));
}

#[test]
fn single_ec2_has_one_port_and_one_address_for_both_ways() {
    let plan = plan(&load(BRIDGE), Topology::SingleEc2, TargetKind::Lab).unwrap();
    assert_eq!(plan.proxy.listen.ingress_port, plan.proxy.listen.egress_port);
    assert_eq!(plan.network.ingress_addresses, plan.network.egress_addresses);
    assert_eq!(plan.proxy.advertise, Advertise::Metadata);
    assert_eq!((plan.scaling.min, plan.scaling.max, plan.network.zones.len()), (1, 1, 1));
}

#[test]
fn a_defaulted_drain_gives_way_to_what_the_spec_says() {
    for drain in ["{ accept: 5m }", "{ grace: 10s }", "{ accept: 0s, grace: 1s }", "{}"] {
        let loaded = load(&format!("{BRIDGE}drain: {drain}\n"));
        for target in TARGETS {
            let plan = plan(&loaded, Topology::LoadBalanced, target).unwrap();
            let times = &plan.proxy.drain;
            assert!(times.accept_ms <= times.grace_ms, "{drain} on {target}: {times:?}");
            let said = |time: Option<sipedge::spec::Duration>| time.map(sipedge::spec::Duration::as_millis);
            assert_eq!(said(loaded.spec.drain.accept).unwrap_or(times.accept_ms), times.accept_ms);
            assert_eq!(said(loaded.spec.drain.grace).unwrap_or(times.grace_ms), times.grace_ms);
        }
    }
}

#[test]
fn difference_names_what_changes() {
    let before = plan(&load(BRIDGE), Topology::LoadBalanced, TargetKind::Lab).unwrap();
    assert_eq!(difference(None, &before).state, State::New);
    let same = difference(Some(&before), &before);
    assert_eq!((same.state, same.settings.len(), same.artefacts.len()), (State::Same, 0, 0));
    let text = format!("{BRIDGE}refuse: silence\ntimers: {{ invite: 45s }}\n");
    let after = plan(&load(&text), Topology::LoadBalanced, TargetKind::Lab).unwrap();
    let change = difference(Some(&before), &after);
    let settings: Vec<&str> = change.settings.iter().map(|change| change.setting.as_str()).collect();
    assert_eq!(settings, ["proxy.refuse", "proxy.timers.invite_ms"]);
    let files: Vec<&str> = change.artefacts.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(files, ["proxy.yaml", "user-data.tftpl"]);
    assert!(change.to_string().contains("-  invite_ms: 30000\n+  invite_ms: 45000\n"), "{change}");
}

#[test]
fn every_default_has_value_and_reason_and_goes_when_it_is_set() {
    for (name, plan) in plans() {
        assert!(plan.defaults.iter().all(|default| !default.value.is_empty() && !default.reason.is_empty()), "{name}");
        assert!(plan.defaults.iter().map(|default| &default.setting).is_sorted());
    }
    let loaded = load(BRIDGE);
    let plan = plan(&loaded, Topology::LoadBalanced, TargetKind::Aws).unwrap();
    let has = |setting: &str| plan.defaults.iter().any(|default| default.setting == setting);
    for setting in [
        "refuse",
        "timers.invite",
        "listen.port",
        "egress.port",
        "scaling.min",
        "drain.grace",
        "aws.zones",
        "trunks.source.from",
    ] {
        assert!(has(setting), "{setting}");
    }
    assert!(!has("aws.profile"), "the example sets it");
    let by_hand = plans().find(|(name, plan)| *name == "by-hand" && plan.topology == Topology::LoadBalanced).unwrap().1;
    assert_eq!(by_hand.defaults, []);
}

#[test]
fn a_carrier_with_one_domain_for_all_needs_none_in_the_spec() {
    let text = BRIDGE
        .replace("carrier: twilio, domain: your-account.sip.twilio.com", "carrier: telnyx")
        .replace("source: { carrier: twilio }", "source: { carrier: telnyx }");
    let plan = plan(&load(&text), Topology::SingleEc2, TargetKind::Lab).unwrap();
    let destination = plan.proxy.trunks.iter().find(|trunk| trunk.name == "destination").unwrap();
    assert_eq!(destination.targets, [Target::new("sip:sip.telnyx.com")]);
    assert!(plan.defaults.iter().any(|default| default.setting == "trunks.destination.domain"));
    // Its two addresses are both called, so the caller has to share one: on another port.
    let call = &plan.verify.calls[0];
    assert_eq!(call.callee.len(), 2);
    assert!(call.callee.iter().any(|callee| callee.address.ip() == call.caller.address.ip()));
    assert!(call.callee.iter().all(|callee| callee.address != call.caller.address));
}

#[test]
fn a_pool_is_in_the_configuration_with_all_that_the_spec_says_of_it() {
    let plan = plan(&load(FAILOVER), Topology::LoadBalanced, TargetKind::Aws).unwrap();
    let pbx = plan.proxy.trunks.iter().find(|trunk| trunk.name == "pbx").unwrap();
    let target = |uri: &str, priority, weight| Target { uri: uri.to_owned(), priority, weight };
    assert_eq!(
        pbx.targets,
        [
            target("sip:198.51.100.17:5060", 1, 3),
            target("sip:198.51.100.18:5060", 1, 1),
            target("sip:198.51.100.19:5060;transport=tcp", 2, 1)
        ]
    );
    assert_eq!((pbx.failover.codes.as_slice(), pbx.failover.attempts), ([500, 503, 504].as_slice(), 3));
    let probe = pbx.probe.as_ref().unwrap();
    assert_eq!((probe.interval_ms, probe.timeout_ms, probe.down_after, probe.up_after), (10_000, 2_000, 2, 2));
    assert!(pbx.trust.identity && pbx.trust.internal_headers);
    let carrier = plan.proxy.trunks.iter().find(|trunk| trunk.name == "carrier").unwrap();
    assert!(carrier.trust.identity && !carrier.trust.internal_headers, "a carrier vouches for its callers alone");
    assert_eq!(carrier.probe, None, "there is no other target that could take its calls");
    let picture = picture(&plan);
    for line in ["1. sip:198.51.100.17:5060, weight 3", "2. sip:198.51.100.19:5060;transport=tcp"] {
        assert!(picture.contains(line), "{picture}");
    }
}

#[test]
fn a_pool_is_probed_unless_the_spec_says_otherwise_and_a_single_target_is_not() {
    let written = "    probe: { interval: 10s, timeout: 2s, down_after: 2, up_after: 2 }\n";
    assert!(FAILOVER.contains(written));
    let probe = |replacement: &str, target| {
        let loaded = load(&FAILOVER.replace(written, replacement));
        let plan = plan(&loaded, Topology::LoadBalanced, target).unwrap();
        let probe = plan.proxy.trunks.iter().find(|trunk| trunk.name == "pbx").unwrap().probe.clone();
        let said = plan.defaults.iter().find(|default| default.setting == "trunks.pbx.probe").cloned();
        (probe.map(|probe| (probe.interval_ms, probe.down_after, probe.up_after)), said.map(|default| default.value))
    };
    let usual = Some((30_000, 2, 2));
    assert_eq!(probe("", TargetKind::Aws), (usual, Some("every 30s, down after 2, up after 2".to_owned())));
    assert_eq!(probe("", TargetKind::Lab), (None, Some("false".to_owned())));
    for target in TARGETS {
        assert_eq!(probe("    probe: true\n", target), (usual, None));
        assert_eq!(probe("    probe: false\n", target), (None, None));
        assert_eq!(probe("    probe: { interval: 1s, timeout: 900ms }\n", target).0, Some((1_000, 2, 2)));
    }
}

#[test]
fn the_smoke_call_of_a_pool_expects_the_targets_of_the_best_priority() {
    let text = FAILOVER.replace("priority: 1, weight: 1", "priority: 1, weight: 0");
    for (text, expected) in
        [(FAILOVER, vec!["198.51.100.17:5060", "198.51.100.18:5060"]), (&text, vec!["198.51.100.17:5060"])]
    {
        let plan = plan(&load(text), Topology::SingleEc2, TargetKind::Lab).unwrap();
        let call = plan.verify.calls.iter().find(|call| call.to == "pbx").unwrap();
        assert_eq!(call.request_uri_hosts, expected);
        let callees: Vec<String> = call.callee.iter().map(|callee| callee.address.to_string()).collect();
        assert_eq!(callees, expected);
    }
}

#[test]
fn certificates_are_named_and_not_contained() {
    for (target, place, clients) in [
        (
            TargetKind::Lab,
            SecretRef::File("certificate-edge.pem".into()),
            Some(SecretRef::File("lab-roots.pem".into())),
        ),
        (TargetKind::Aws, SecretRef::Ssm("/sipedge/tls-edge/load-balanced/certificates/edge".into()), None),
    ] {
        let plan = plan(&load(TLS), Topology::LoadBalanced, target).unwrap();
        let tls = plan.proxy.listen.tls.as_ref().unwrap();
        assert_eq!((tls.port, &tls.certificate, &tls.client_roots), (5061, &place, &clients));
        let [certificate] = plan.certificates.as_slice() else { panic!("{:?}", plan.certificates) };
        assert_eq!((certificate.file.as_str(), &certificate.place, certificate.has_key), ("edge.pem", &place, true));
        let listeners = serde_json::to_value(&plan.network.listeners).unwrap();
        let expected = serde_json::json!([{"port": 5060, "protocol": "TCP_UDP"}, {"port": 5061, "protocol": "TCP"}]);
        assert_eq!(listeners, expected);
    }
}

#[test]
fn a_transport_beside_the_domain_is_that_of_the_target() {
    let text = BRIDGE.replace("domain: your-account", "transport: tcp, domain: your-account");
    let plan = plan(&load(&text), Topology::SingleEc2, TargetKind::Lab).unwrap();
    let destination = plan.proxy.trunks.iter().find(|trunk| trunk.name == "destination").unwrap();
    assert_eq!(destination.targets, [Target::new("sip:your-account.sip.twilio.com;transport=tcp")]);
}

#[test]
fn the_picture_is_square() {
    let far = BRIDGE.replace("us-east-1", "ap-southeast-1");
    let many = BRIDGE
        .replace("region: us-east-1", "region: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]");
    let others = [far, many].map(|text| plan(&load(&text), Topology::LoadBalanced, TargetKind::Aws).unwrap());
    for plan in plans().map(|(_, plan)| plan).chain(others) {
        let picture = picture(&plan);
        let widths: BTreeSet<usize> =
            picture.lines().skip_while(|line| !line.starts_with('┌')).map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "\n{picture}");
    }
}
