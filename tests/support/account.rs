//! What stands in the account after a deploy of the example's edge, looked at one by one: network, doors, group, launch template, load
//! balancer, alarms, secrets; and that nothing of it is left after a destroy.

#![allow(dead_code, reason = "each test file uses its part of this module")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cloud::{Cloud, from_base64, texts};

/// Where every range goes that has no way of its own.
const EVERYWHERE: &str = "0.0.0.0/0";

/// The group, template, dashboard and role of a topology of the example's edge, and what names of its alarms begin with.
fn group_name(topology: &str) -> String {
    format!("sipedge-twilio-bridge-{topology}")
}

/// Everything of single-ec2; `outputs` as the deploy told them.
pub(crate) fn look_at_single(cloud: &Cloud, outputs: &Value) {
    let topology = "single-ec2";
    let group = group(cloud, topology, outputs);
    assert_eq!((&group["MinSize"], &group["MaxSize"], &group["DesiredCapacity"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!((&group["HealthCheckType"], &group["HealthCheckGracePeriod"]), (&json!("EC2"), &json!(60)));
    hooks_are_right(cloud, topology);
    template_is_safe(cloud, outputs, true);
    assert_eq!(outputs["ingress_addresses"], outputs["egress_addresses"], "one Elastic IP for both");
    assert_eq!(outputs["ingress_addresses"].as_array().map(Vec::len), Some(1));

    let subnets = subnets(cloud, topology);
    assert_eq!(ways(&subnets), [("us-east-1a".to_owned(), "public")], "one zone, and no NAT");
    assert_eq!(group["VPCZoneIdentifier"], subnets[0].id.as_str());

    let allowed = carriers_on_sip_ports(cloud, topology);
    let groups = security_groups(cloud, topology);
    let instances = security_group(&groups, "sipedge-twilio-bridge-single-ec2-instances-");
    assert_eq!(rules(&instances["IpPermissions"]), allowed, "SIP from the carriers' ranges, and nothing else");
    assert_eq!(rules(&instances["IpPermissionsEgress"]), out_of_instances());

    alarms_are_right(
        cloud,
        topology,
        &[
            ("cpu-credits-charged", "GreaterThanThreshold", 0.0),
            ("cpu-high", "GreaterThanThreshold", 80.0),
            ("instance-not-ready", "GreaterThanThreshold", 0.0),
            ("no-instance", "LessThanThreshold", 1.0),
            ("unhealthy-instance", "GreaterThanThreshold", 0.0),
        ],
    );
}

/// Everything of load-balanced; `outputs` as the deploy told them.
pub(crate) fn look_at_balanced(cloud: &Cloud, outputs: &Value) {
    let topology = "load-balanced";
    let group = group(cloud, topology, outputs);
    assert_eq!((&group["MinSize"], &group["MaxSize"]), (&json!(2), &json!(10)));
    assert_eq!((&group["HealthCheckType"], &group["HealthCheckGracePeriod"]), (&json!("ELB"), &json!(300)));
    hooks_are_right(cloud, topology);
    scaling_is_right(cloud, topology);
    template_is_safe(cloud, outputs, false);
    let subnets = subnets(cloud, topology);
    network_is_right(cloud, &subnets, &group, outputs);
    balanced_doors_are_narrow(cloud);
    balancer_is_right(cloud, &subnets, outputs);
    alarms_are_right(
        cloud,
        topology,
        &[
            ("cpu-high", "GreaterThanThreshold", 80.0),
            ("desired-capacity-high", "GreaterThanOrEqualToThreshold", 8.0),
            ("few-healthy-hosts", "LessThanThreshold", 2.0),
            ("no-healthy-hosts", "LessThanThreshold", 1.0),
            ("unhealthy-hosts", "GreaterThanThreshold", 0.0),
        ],
    );
}

/// The plan that was deployed, from the state folder.
fn plan(cloud: &Cloud, topology: &str) -> Value {
    let text = fs::read_to_string(cloud.state(topology).join("plan.json")).expect("the state has the plan");
    serde_json::from_str(&text).expect("JSON")
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The group, which runs a numbered version of the topology's launch template.
fn group(cloud: &Cloud, topology: &str, outputs: &Value) -> Value {
    let name = group_name(topology);
    let groups =
        cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", json!({ "AutoScalingGroupNames": [name] }));
    let group = groups["AutoScalingGroups"][0].clone();
    assert!(group.is_object(), "there is no group {name}: {groups}");
    let template = &group["LaunchTemplate"];
    assert_eq!(template["LaunchTemplateId"], outputs["launch_template_id"]);
    let version = text(&template["Version"]);
    assert!(version.parse::<u64>().is_ok(), "neither $Latest nor $Default: {template}");
    group
}

fn hooks_are_right(cloud: &Cloud, topology: &str) {
    let asked = json!({ "AutoScalingGroupName": group_name(topology) });
    let hooks = cloud.moto.ask("autoscaling", "describe_lifecycle_hooks", asked);
    let mut told: Vec<(String, String, u64, String)> = list(&hooks["LifecycleHooks"])
        .iter()
        .map(|hook| {
            let timeout = hook["HeartbeatTimeout"].as_u64().unwrap_or_default();
            (
                text(&hook["LifecycleHookName"]),
                text(&hook["LifecycleTransition"]),
                timeout,
                text(&hook["DefaultResult"]),
            )
        })
        .collect();
    told.sort();
    let grace_ms = plan(cloud, topology)["proxy"]["drain"]["grace_ms"].as_u64().expect("the grace of a drain");
    let hook = |name: &str, what: &str, timeout: u64, result: &str| {
        (name.to_owned(), format!("autoscaling:EC2_INSTANCE_{what}"), timeout, result.to_owned())
    };
    let expected =
        [hook("drain", "TERMINATING", grace_ms / 1_000 + 120, "CONTINUE"), hook("ready", "LAUNCHING", 300, "ABANDON")];
    assert_eq!(told, expected);
}

fn scaling_is_right(cloud: &Cloud, topology: &str) {
    let asked = json!({ "AutoScalingGroupName": group_name(topology) });
    let policies = cloud.moto.ask("autoscaling", "describe_policies", asked);
    let targets: BTreeMap<String, Option<f64>> = list(&policies["ScalingPolicies"])
        .iter()
        .map(|policy| {
            assert_eq!(policy["PolicyType"], "TargetTrackingScaling");
            let tracking = &policy["TargetTrackingConfiguration"];
            let metric = text(&tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]);
            (metric, tracking["TargetValue"].as_f64())
        })
        .collect();
    let expected = [
        ("ASGAverageCPUUtilization".to_owned(), Some(70.0)),
        // 50 MB in each second of a minute.
        ("ASGAverageNetworkIn".to_owned(), Some(50e6 * 60.0)),
    ];
    assert_eq!(targets, BTreeMap::from(expected), "{policies}");
}

/// IMDSv2 for the instance alone, an encrypted gp3 disk, no key for SSH, and flows that are remembered as long as calls need it.
fn template_is_safe(cloud: &Cloud, outputs: &Value, public_address: bool) {
    let asked = json!({ "LaunchTemplateId": outputs["launch_template_id"], "Versions": ["$Latest"] });
    let versions = cloud.moto.ask("ec2", "describe_launch_template_versions", asked);
    let data = &versions["LaunchTemplateVersions"][0]["LaunchTemplateData"];
    let metadata = &data["MetadataOptions"];
    assert_eq!(
        (&metadata["HttpTokens"], &metadata["HttpPutResponseHopLimit"]),
        (&json!("required"), &json!(1)),
        "{data}"
    );
    let disk = &data["BlockDeviceMappings"][0]["Ebs"];
    assert_eq!((&disk["Encrypted"], &disk["VolumeType"]), (&json!(true), &json!("gp3")), "{data}");
    assert!(data["KeyName"].is_null(), "no SSH: {data}");
    assert_eq!(data["NetworkInterfaces"].as_array().map(Vec::len), Some(1), "{data}");
    let interface = &data["NetworkInterfaces"][0];
    assert_eq!(interface["AssociatePublicIpAddress"], public_address, "{data}");
    let tracking = &interface["ConnectionTrackingSpecification"];
    assert_eq!((&tracking["UdpTimeout"], &tracking["UdpStreamTimeout"]), (&json!(60), &json!(180)), "{data}");
}

/// A subnet and what its default route leads to.
struct Subnet {
    id: String,
    zone: String,
    vpc: String,
    way: String,
}

/// The subnets of a topology by zone, those that are connected to the Internet first.
fn subnets(cloud: &Cloud, topology: &str) -> Vec<Subnet> {
    let filter = json!({ "Filters": [{ "Name": "tag:sipedge:topology", "Values": [topology] }] });
    let found = cloud.moto.ask("ec2", "describe_subnets", filter);
    let mut subnets: Vec<Subnet> = list(&found["Subnets"])
        .iter()
        .map(|subnet| {
            assert_eq!(subnet["MapPublicIpOnLaunch"], false, "{subnet}");
            let id = text(&subnet["SubnetId"]);
            let filter = json!({ "Filters": [{ "Name": "association.subnet-id", "Values": [id] }] });
            let tables = cloud.moto.ask("ec2", "describe_route_tables", filter);
            let routes = list(&tables["RouteTables"][0]["Routes"]);
            let default: Vec<&Value> =
                routes.iter().filter(|route| route["DestinationCidrBlock"] == EVERYWHERE).collect();
            assert_eq!(default.len(), 1, "{id} has one way out: {tables}");
            let way = default[0]["NatGatewayId"].as_str().or(default[0]["GatewayId"].as_str()).unwrap_or_default();
            Subnet { id, zone: text(&subnet["AvailabilityZone"]), vpc: text(&subnet["VpcId"]), way: way.to_owned() }
        })
        .collect();
    subnets.sort_by_key(|subnet| (subnet.zone.clone(), !subnet.is_public()));
    subnets
}

impl Subnet {
    fn is_public(&self) -> bool {
        self.way.starts_with("igw-")
    }
}

/// Zone and kind of each.
fn ways(subnets: &[Subnet]) -> Vec<(String, &'static str)> {
    let kind = |subnet: &Subnet| match subnet.way.split('-').next() {
        Some("igw") => "public",
        Some("nat") => "private",
        _ => "cut off",
    };
    subnets.iter().map(|subnet| (subnet.zone.clone(), kind(subnet))).collect()
}

fn network_is_right(cloud: &Cloud, subnets: &[Subnet], group: &Value, outputs: &Value) {
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"];
    let expected: Vec<(String, &str)> =
        zones.iter().flat_map(|zone| [((*zone).to_owned(), "public"), ((*zone).to_owned(), "private")]).collect();
    assert_eq!(ways(subnets), expected, "a public and a private subnet in each zone");
    let vpcs: BTreeSet<&String> = subnets.iter().map(|subnet| &subnet.vpc).collect();
    assert_eq!(vpcs.len(), 1, "{vpcs:?}");
    let vpc = &subnets[0].vpc;

    let filter = json!({ "Filters": [{ "Name": "attachment.vpc-id", "Values": [vpc] }] });
    let internet = cloud.moto.ask("ec2", "describe_internet_gateways", filter);
    let internet = texts(&internet["InternetGateways"], "InternetGatewayId");
    let nat = cloud.moto.ask("ec2", "describe_nat_gateways", json!({}));
    assert_eq!(nat["NatGateways"].as_array().map(Vec::len), Some(1), "{nat}");
    let nat = &nat["NatGateways"][0];
    assert_eq!((&nat["State"], &nat["VpcId"]), (&json!("available"), &json!(vpc)), "{nat}");
    assert_eq!(json!(texts(&nat["NatGatewayAddresses"], "PublicIp")), outputs["egress_addresses"]);
    for subnet in subnets {
        let expected = if subnet.is_public() { internet.clone() } else { texts(&json!([nat]), "NatGatewayId") };
        assert_eq!(expected, std::slice::from_ref(&subnet.way), "the way out of {}", subnet.id);
    }
    let public: Vec<&String> = subnets.iter().filter(|subnet| subnet.is_public()).map(|subnet| &subnet.id).collect();
    assert!(public.contains(&&text(&nat["SubnetId"])), "the NAT gateway is in a public subnet: {nat}");

    let private: BTreeSet<String> =
        subnets.iter().filter(|subnet| !subnet.is_public()).map(|subnet| subnet.id.clone()).collect();
    let of_group = text(&group["VPCZoneIdentifier"]);
    let of_group: BTreeSet<String> = of_group.split(',').map(str::to_owned).collect();
    assert_eq!(of_group, private, "instances are in the private subnets");
}

/// Security groups that bear the topology's tag, that of the VPC among them.
fn security_groups(cloud: &Cloud, topology: &str) -> Vec<Value> {
    let filter = json!({ "Filters": [{ "Name": "tag:sipedge:topology", "Values": [topology] }] });
    let groups = list(&cloud.moto.ask("ec2", "describe_security_groups", filter)["SecurityGroups"]);
    for group in groups.iter().filter(|group| group["GroupName"] == "default") {
        assert!(rules(&group["IpPermissions"]).is_empty(), "the VPC's own group admits nobody: {group}");
    }
    groups
}

fn security_group(groups: &[Value], prefix: &str) -> Value {
    let found: Vec<&Value> = groups.iter().filter(|group| text(&group["GroupName"]).starts_with(prefix)).collect();
    assert_eq!(found.len(), 1, "one group {prefix}*: {groups:#?}");
    found[0].clone()
}

/// Each rule as `PROTOCOL FROM-TO WHO`, where who is a range, a prefix list or a group.
fn rules(permissions: &Value) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for rule in list(permissions) {
        let ports = format!("{} {}-{}", text(&rule["IpProtocol"]), rule["FromPort"], rule["ToPort"]);
        for (kind, key) in [
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("PrefixListIds", "PrefixListId"),
            ("UserIdGroupPairs", "GroupId"),
        ] {
            rules.extend(texts(&rule[kind], key).iter().map(|who| format!("{ports} {who}")));
        }
    }
    rules
}

/// The rules that admit whom the proxies' configuration admits, and nobody else.
fn carriers_on_sip_ports(cloud: &Cloud, topology: &str) -> BTreeSet<String> {
    let ranges: BTreeSet<String> = list(&plan(cloud, topology)["proxy"]["trunks"])
        .iter()
        .flat_map(|trunk| list(&trunk["from"]))
        .map(|range| text(&range))
        .collect();
    assert!(ranges.len() > 1 && !ranges.contains(EVERYWHERE), "Twilio has some ranges: {ranges:?}");
    ["tcp", "udp"]
        .iter()
        .flat_map(|protocol| ranges.iter().map(move |range| format!("{protocol} 5060-5060 {range}")))
        .collect()
}

fn out_of_instances() -> BTreeSet<String> {
    ["tcp", "udp"].iter().map(|protocol| format!("{protocol} 1-65535 {EVERYWHERE}")).collect()
}

/// Carriers reach the load balancer, the load balancer reaches the instances, and nobody else reaches anything.
fn balanced_doors_are_narrow(cloud: &Cloud) {
    let topology = "load-balanced";
    let groups = security_groups(cloud, topology);
    let balancer = security_group(&groups, "sipedge-twilio-bridge-load-balanced-load-balancer-");
    let instances = security_group(&groups, "sipedge-twilio-bridge-load-balanced-instances-");
    let inside = |group: &Value| -> BTreeSet<String> {
        let group = text(&group["GroupId"]);
        ["tcp 5060-5060", "udp 5060-5060", "tcp 8080-8080"].iter().map(|ports| format!("{ports} {group}")).collect()
    };
    assert_eq!(rules(&balancer["IpPermissions"]), carriers_on_sip_ports(cloud, topology));
    assert_eq!(rules(&balancer["IpPermissionsEgress"]), inside(&instances));
    assert_eq!(rules(&instances["IpPermissions"]), inside(&balancer));
    assert_eq!(rules(&instances["IpPermissionsEgress"]), out_of_instances());
}

fn balancer_is_right(cloud: &Cloud, subnets: &[Subnet], outputs: &Value) {
    let balancers = cloud.moto.ask("elbv2", "describe_load_balancers", json!({}));
    assert_eq!(balancers["LoadBalancers"].as_array().map(Vec::len), Some(1), "{balancers}");
    let balancer = &balancers["LoadBalancers"][0];
    assert_eq!((&balancer["Type"], &balancer["Scheme"]), (&json!("network"), &json!("internet-facing")));
    assert_eq!(balancer["SecurityGroups"].as_array().map(Vec::len), Some(1), "only attached when it is made");
    let mut zones = list(&balancer["AvailabilityZones"]);
    zones.sort_by_key(|zone| text(&zone["ZoneName"]));
    let addresses: Vec<String> =
        zones.iter().flat_map(|zone| texts(&zone["LoadBalancerAddresses"], "IpAddress")).collect();
    assert_eq!(json!(addresses), outputs["ingress_addresses"], "an address in each zone, in their order");
    assert_eq!(addresses.len(), 3);
    let public: Vec<String> =
        subnets.iter().filter(|subnet| subnet.is_public()).map(|subnet| subnet.id.clone()).collect();
    assert_eq!(texts(&json!(zones), "SubnetId"), public);

    let arn = &balancer["LoadBalancerArn"];
    let attributes = cloud.moto.ask("elbv2", "describe_load_balancer_attributes", json!({ "LoadBalancerArn": arn }));
    assert_eq!(attribute(&attributes, "load_balancing.cross_zone.enabled"), "true");
    let listeners = cloud.moto.ask("elbv2", "describe_listeners", json!({ "LoadBalancerArn": arn }));
    assert_eq!(listeners["Listeners"].as_array().map(Vec::len), Some(1), "{listeners}");
    let listener = &listeners["Listeners"][0];
    assert_eq!((&listener["Port"], &listener["Protocol"]), (&json!(5060), &json!("TCP_UDP")));
    let groups = cloud.moto.ask("elbv2", "describe_target_groups", json!({ "LoadBalancerArn": arn }));
    let targets = &groups["TargetGroups"][0];
    assert_eq!((&targets["Protocol"], &targets["HealthCheckProtocol"]), (&json!("TCP_UDP"), &json!("HTTP")));
    assert_eq!((&targets["HealthCheckPath"], &targets["HealthCheckIntervalSeconds"]), (&json!("/readyz"), &json!(30)));
    assert_eq!((&targets["HealthyThresholdCount"], &targets["UnhealthyThresholdCount"]), (&json!(2), &json!(2)));
    let arn = &targets["TargetGroupArn"];
    let attributes = cloud.moto.ask("elbv2", "describe_target_group_attributes", json!({ "TargetGroupArn": arn }));
    for (name, value) in [
        ("stickiness.enabled", "true"),
        ("stickiness.type", "source_ip"),
        ("preserve_client_ip.enabled", "true"),
        ("deregistration_delay.timeout_seconds", "180"),
        ("deregistration_delay.connection_termination.enabled", "true"),
    ] {
        assert_eq!(attribute(&attributes, name), value, "{name}: {attributes}");
    }
}

fn attribute(attributes: &Value, name: &str) -> String {
    let list = list(&attributes["Attributes"]);
    list.iter().find(|attribute| attribute["Key"] == name).map(|found| text(&found["Value"])).unwrap_or_default()
}

/// Exactly these alarms, of which people are told by mail; and a dashboard.
fn alarms_are_right(cloud: &Cloud, topology: &str, expected: &[(&str, &str, f64)]) {
    let name = group_name(topology);
    let topics = cloud.moto.ask("sns", "list_topics", json!({}));
    let topics = texts(&topics["Topics"], "TopicArn");
    let topic = topics.iter().find(|arn| arn.ends_with(&format!(":{name}-alarms")));
    let topic = topic.unwrap_or_else(|| panic!("there is no topic {name}-alarms: {topics:?}"));
    let told = cloud.moto.ask("sns", "list_subscriptions_by_topic", json!({ "TopicArn": topic }));
    let told = list(&told["Subscriptions"]);
    // Whether it is confirmed is not looked at: that is by a link in a mail, and moto takes it for confirmed.
    let told: Vec<(String, String)> = told.iter().map(|who| (text(&who["Protocol"]), text(&who["Endpoint"]))).collect();
    assert_eq!(told, [("email".to_owned(), "noc@example.com".to_owned())]);

    let asked = json!({ "AlarmNamePrefix": format!("{name}-") });
    let mut alarms = list(&cloud.moto.ask("cloudwatch", "describe_alarms", asked)["MetricAlarms"]);
    alarms.sort_by_key(|alarm| text(&alarm["AlarmName"]));
    let found: Vec<(String, String, Option<f64>)> = alarms
        .iter()
        .map(|alarm| (text(&alarm["AlarmName"]), text(&alarm["ComparisonOperator"]), alarm["Threshold"].as_f64()))
        .collect();
    let expected: Vec<(String, String, Option<f64>)> = expected
        .iter()
        .map(|(alarm, comparison, threshold)| (format!("{name}-{alarm}"), (*comparison).to_owned(), Some(*threshold)))
        .collect();
    assert_eq!(found, expected);
    for alarm in &alarms {
        let both = (&alarm["AlarmActions"], &alarm["OKActions"]);
        assert_eq!(both, (&json!([topic]), &json!([topic])), "its beginning and its end are told: {alarm}");
    }

    let dashboard = cloud.moto.ask("cloudwatch", "get_dashboard", json!({ "DashboardName": name }));
    let body: Value = serde_json::from_str(dashboard["DashboardBody"].as_str().unwrap_or_default()).expect("JSON");
    assert_eq!(body["widgets"].as_array().map(Vec::len), Some(4), "{body}");
}

/// What is in Parameter Store is in no file of the project, in nothing that a command has said, and in no instance's user data.
pub(crate) fn no_secret_is_anywhere(cloud: &Cloud) {
    let said = cloud.said();
    assert!(!said.is_empty(), "commands were listened to");
    let mut user_data = Vec::new();
    for topology in ["single-ec2", "load-balanced"] {
        let asked = json!({ "LaunchTemplateName": group_name(topology) });
        let versions = cloud.moto.ask("ec2", "describe_launch_template_versions", asked);
        let versions = list(&versions["LaunchTemplateVersions"]);
        assert!(versions.len() >= 2, "{topology} has been changed: {versions:#?}");
        for version in versions {
            let encoded = text(&version["LaunchTemplateData"]["UserData"]);
            let decoded = from_base64(&encoded);
            let where_it_is = format!("/sipedge/twilio-bridge/{topology}/token-keys");
            assert!(decoded.contains(&where_it_is), "user data names its secrets: {decoded}");
            user_data.push(encoded);
            user_data.push(decoded);
        }
    }
    for topology in ["single-ec2", "load-balanced"] {
        let keys: Value = serde_json::from_str(&secret(cloud, topology, "token-keys")).expect("JSON");
        let mut secrets = texts(&keys["tokens"], "key");
        assert!(!secrets.is_empty(), "{topology} has a token key");
        secrets.push(text(&keys["branch"]));
        secrets.push(secret(cloud, topology, "answerer"));
        for secret in secrets {
            assert!(secret.len() >= 32, "a secret is long");
            search(cloud.project.folder(), &secret);
            assert!(!said.iter().any(|text| text.contains(&secret)), "a command has said a secret of {topology}");
            assert!(!user_data.iter().any(|text| text.contains(&secret)), "user data has a secret of {topology}");
        }
    }
}

fn secret(cloud: &Cloud, topology: &str, name: &str) -> String {
    let name = format!("/sipedge/twilio-bridge/{topology}/{name}");
    let parameter = cloud.moto.ask("ssm", "get_parameter", json!({ "Name": name, "WithDecryption": true }));
    assert_eq!(parameter["Parameter"]["Type"], "SecureString", "{name}");
    text(&parameter["Parameter"]["Value"])
}

fn search(folder: &Path, secret: &str) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        if path.is_dir() {
            search(&path, secret);
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
}

/// Nothing that bears the edge's tag or name, and no network but the one that every account begins with.
pub(crate) fn nothing_is_left(cloud: &Cloud) {
    nothing_of_the_edge_is_left(cloud);
    // Every account has a VPC to begin with, and every VPC a security group.
    for vpc in list(&cloud.moto.ask("ec2", "describe_vpcs", json!({}))["Vpcs"]) {
        assert_eq!(vpc["IsDefault"], true, "{vpc}");
    }
    for group in list(&cloud.moto.ask("ec2", "describe_security_groups", json!({}))["SecurityGroups"]) {
        assert_eq!(group["GroupName"], "default", "{group}");
    }
}

/// Nothing that bears the edge's tag or name.
pub(crate) fn nothing_of_the_edge_is_left(cloud: &Cloud) {
    let tagged = cloud.moto.ask(
        "resourcegroupstaggingapi",
        "get_resources",
        json!({ "TagFilters": [{ "Key": "sipedge:edge", "Values": ["twilio-bridge"] }] }),
    );
    let left: Vec<String> = texts(&tagged["ResourceTagMappingList"], "ResourceARN")
        .into_iter()
        // Terminated instances and their disks stay visible for an hour.
        .filter(|arn| !arn.contains(":instance/") && !arn.contains(":volume/") && !arn.contains(":network-interface/"))
        // So does a NAT gateway, whose state is looked at below.
        .filter(|arn| !arn.contains(":natgateway/"))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
    for (service, operation, list) in [
        ("autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups"),
        ("elbv2", "describe_load_balancers", "LoadBalancers"),
        ("elbv2", "describe_target_groups", "TargetGroups"),
        ("ec2", "describe_addresses", "Addresses"),
        ("ec2", "describe_launch_templates", "LaunchTemplates"),
        ("iam", "list_instance_profiles", "InstanceProfiles"),
        ("ssm", "describe_parameters", "Parameters"),
        ("cloudwatch", "describe_alarms", "MetricAlarms"),
        ("cloudwatch", "list_dashboards", "DashboardEntries"),
        ("sns", "list_topics", "Topics"),
    ] {
        let found = cloud.moto.ask(service, operation, json!({}));
        assert_eq!(found[list].as_array().map(Vec::len).unwrap_or_default(), 0, "{service} {operation}: {found}");
    }
    let roles = cloud.moto.ask("iam", "list_roles", json!({}));
    let roles = texts(&roles["Roles"], "RoleName");
    assert!(!roles.iter().any(|role| role.starts_with("sipedge-")), "{roles:?}");
    for gateway in list(&cloud.moto.ask("ec2", "describe_nat_gateways", json!({}))["NatGateways"]) {
        assert_eq!(gateway["State"], "deleted", "{gateway}");
    }
}
