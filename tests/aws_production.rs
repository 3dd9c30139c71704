//! The production example on AWS, with TLS: Terraform's state in S3, names in Route 53, a way out of its own in every zone, Slack, own tags.
//! And what an account may have already: a VPC, or a state on one machine that moves to S3.

#![cfg(feature = "aws")]

#[path = "support/account.rs"]
mod account;
#[path = "support/cloud.rs"]
mod cloud;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use account::{nothing_is_left, nothing_of_the_edge_is_left};
use cloud::project::{Ran, repository};
use cloud::{Cloud, STATE_BUCKET, image, texts};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Beside what the example says: calls by TLS as well.
const TLS: &str = "
listen: { tls: { port: 5061, certificate: edge } }
certificates: { edge: { file: edge.pem } }
";

#[test]
fn the_production_example_lives_and_goes() {
    let Some(cloud) = Cloud::start("the_production_example_lives_and_goes") else { return };
    let topology = "load-balanced";
    cloud.make_state_bucket();
    let zone = json!({ "Name": "example.com", "CallerReference": "1" });
    let zone = text(&cloud.moto.ask("route53", "create_hosted_zone", zone)["HostedZone"]["Id"]);
    let profile = "\n[profile production]\naws_access_key_id = production\naws_secret_access_key = production\n";
    let config = cloud.moto.home().join(".aws/config");
    let others = fs::read_to_string(&config).expect("the profiles of the tests");
    fs::write(&config, others + profile).expect("written");
    let certificate = certificate();
    fs::write(cloud.project.folder().join("edge.pem"), &certificate).expect("written");
    // The example names no image: the newest one of this version is taken.
    let image = image(&cloud.moto, "sipedge-production");
    let tag = json!({ "Key": "sipedge:version", "Value": env!("CARGO_PKG_VERSION") });
    cloud.moto.ask("ec2", "create_tags", json!({ "Resources": [image], "Tags": [tag] }));
    cloud.project.write_spec(&production());

    let outputs = outputs(&cloud.deploy(topology));
    let state = state_in_s3(&cloud, topology);
    assert!(resources(&state).iter().any(|resource| resource.ends_with("aws_lb.this")), "{:?}", resources(&state));
    no_secret_is_in(&state, &cloud, &certificate);
    nothing_but_the_state_is_in_the_bucket(&cloud, topology);
    no_local_state_has_resources(&cloud);
    names_are_right(&cloud, &zone, &outputs);
    listeners_are_right(&cloud, &outputs);
    every_zone_has_its_way_out(&cloud, &outputs);
    people_are_told(&cloud);
    own_tags_are_everywhere(&cloud, topology);
    a_plan_is_empty(&cloud, topology);
    nothing_but_the_state_is_in_the_bucket(&cloud, topology);

    cloud.run(&["destroy", topology, "--target", "aws", "--yes"]).expect(0);
    let left = state_in_s3(&cloud, topology);
    assert!(resources(&left).is_empty(), "{left}");
    nothing_but_the_state_is_in_the_bucket(&cloud, topology);
    assert!(records(&cloud, &zone).is_empty(), "{:?}", records(&cloud, &zone));
    let channels = cloud.moto.ask("chatbot", "describe_slack_channel_configurations", json!({}));
    assert_eq!(channels["SlackChannelConfigurations"], json!([]));
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}

#[test]
fn a_vpc_that_exists_stays_as_it_is() {
    let Some(cloud) = Cloud::start("a_vpc_that_exists_stays_as_it_is") else { return };
    let topology = "single-ec2";
    let network = Network::make(&cloud);
    let before = network.look(&cloud);
    cloud.change_spec("region: us-east-1,", &format!("region: us-east-1, vpc: {},", network.spec()));

    let made = outputs(&cloud.deploy(topology));
    assert_eq!(made["ingress_addresses"].as_array().map(Vec::len), Some(1), "{made}");
    let asked = json!({ "AutoScalingGroupNames": [made["group_name"]] });
    let groups = cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", asked);
    assert_eq!(groups["AutoScalingGroups"][0]["VPCZoneIdentifier"], network.public[ZONES[0]], "{groups}");
    let filter = json!({ "Filters": [{ "Name": "tag:sipedge:topology", "Values": [topology] }] });
    for (operation, list) in
        [("describe_vpcs", "Vpcs"), ("describe_subnets", "Subnets"), ("describe_route_tables", "RouteTables")]
    {
        let found = cloud.moto.ask("ec2", operation, filter.clone());
        assert_eq!(found[list], json!([]), "no network of its own");
    }
    let doors = cloud.moto.ask("ec2", "describe_security_groups", filter);
    assert_eq!(texts(&doors["SecurityGroups"], "VpcId"), [network.vpc.as_str()], "its door is in the VPC: {doors}");
    assert_eq!(network.look(&cloud), before, "nothing is changed in the VPC");
    a_plan_is_empty(&cloud, topology);

    cloud.run(&["destroy", topology, "--target", "aws", "--yes"]).expect(0);
    assert_eq!(network.look(&cloud), before, "the VPC stays");
    nothing_of_the_edge_is_left(&cloud);
    cloud.project.assert_no_trace();
}

#[test]
fn a_local_state_moves_to_s3_and_is_all_that_a_destroy_needs() {
    let Some(cloud) = Cloud::start("a_local_state_moves_to_s3_and_is_all_that_a_destroy_needs") else { return };
    let topology = "single-ec2";
    let before = outputs(&cloud.deploy(topology));
    let file = cloud.state(topology).join("terraform.tfstate");
    let local: Value = serde_json::from_slice(&fs::read(&file).expect("a local state")).expect("JSON");
    assert!(!resources(&local).is_empty(), "{local}");

    cloud.make_state_bucket();
    let place = format!("region: us-east-1, state: {{ bucket: {STATE_BUCKET} }},");
    cloud.change_spec("region: us-east-1,", &place);
    let moved = cloud.deploy(topology);
    assert_eq!(outputs(&moved), before, "what stands is what stood");
    let applied = moved.json_lines().into_iter().find(|line| line["event"] == "step-done" && line["step"] == "apply");
    assert_eq!(applied.map(|line| text(&line["detail"])).as_deref(), Some("nothing to change"), "{}", moved.stdout);
    let state = state_in_s3(&cloud, topology);
    assert_eq!(state["outputs"], local["outputs"], "it is the same state");
    assert_eq!(resources(&state), resources(&local));
    a_plan_is_empty(&cloud, topology);

    // On another machine there is the spec, and nothing else.
    fs::remove_dir_all(cloud.project.folder().join(".sipedge")).expect("removed");
    cloud.run(&["destroy", topology, "--target", "aws", "--yes"]).expect(0);
    let left = state_in_s3(&cloud, topology);
    assert!(resources(&left).is_empty(), "{left}");
    nothing_but_the_state_is_in_the_bucket(&cloud, topology);
    nothing_is_left(&cloud);
    cloud.project.assert_no_trace();
}

/// The example as it stands there, but for the edge's name and the region, which are those of the tests; and with TLS.
fn production() -> String {
    let example = fs::read_to_string(repository().join("examples/production.yaml")).expect("the example can be read");
    let spec = example.replace("bridge-production", "twilio-bridge").replace("eu-central-1", "us-east-1");
    let addresses = "gateways: per-zone, addresses: 2";
    for part in ["name: twilio-bridge", "us-east-1c", STATE_BUCKET, addresses, "slack:", "dns:"] {
        assert!(spec.contains(part), "the example has no {part:?} any more:\n{spec}");
    }
    spec + TLS
}

/// For the example's name, with its key.
fn certificate() -> String {
    let parameters = CertificateParams::new(vec!["sip.example.com".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    parameters.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// What a deploy says it has made.
fn outputs(ran: &Ran) -> Value {
    let deployed = ran.json_lines().into_iter().find(|line| line["event"] == "deployed");
    deployed.unwrap_or_else(|| panic!("{}", ran.stdout))["outputs"].clone()
}

fn a_plan_is_empty(cloud: &Cloud, topology: &str) {
    let plan = cloud.run(&["plan", topology, "--json"]).expect(0).json();
    assert_eq!(plan["plans"].as_array().map(Vec::len), Some(1), "{plan}");
    let account = &plan["plans"][0]["account"];
    assert_eq!(account["resources"], json!([]), "a second plan of {topology} is empty: {account}");
}

fn state_key(topology: &str) -> String {
    format!("sipedge/twilio-bridge/{topology}.tfstate")
}

/// Terraform's state in the bucket, which is encrypted.
fn state_in_s3(cloud: &Cloud, topology: &str) -> Value {
    let object = cloud.moto.ask("s3", "get_object", json!({ "Bucket": STATE_BUCKET, "Key": state_key(topology) }));
    assert_eq!(object["ServerSideEncryption"], "AES256", "{object}");
    serde_json::from_str(&text(&object["Body"])).unwrap_or_else(|error| panic!("{error}: {object}"))
}

/// Addresses of the resources in a state, those that are only looked up not among them.
fn resources(state: &Value) -> Vec<String> {
    let managed = list(&state["resources"]).into_iter().filter(|resource| resource["mode"] == "managed");
    let address = |resource: Value| {
        let parts = ["module", "type", "name"].map(|part| text(&resource[part]));
        parts.join(".").trim_start_matches('.').to_owned()
    };
    managed.map(address).collect()
}

/// One state, and no lock: that was there meanwhile, and went.
fn nothing_but_the_state_is_in_the_bucket(cloud: &Cloud, topology: &str) {
    let (bucket, key) = (json!({ "Bucket": STATE_BUCKET }), state_key(topology));
    let objects = cloud.moto.ask("s3", "list_objects_v2", bucket.clone());
    assert_eq!(texts(&objects["Contents"], "Key"), std::slice::from_ref(&key), "{objects}");
    let versions = cloud.moto.ask("s3", "list_object_versions", bucket);
    let lock = format!("{key}.tflock");
    assert!(texts(&versions["DeleteMarkers"], "Key").contains(&lock), "the state was locked: {versions}");
}

fn no_local_state_has_resources(cloud: &Cloud) {
    let mut found = Vec::new();
    local_states(cloud.project.folder(), &mut found);
    assert!(found.is_empty(), "states on this machine: {found:?}");
}

/// Files that Terraform keeps a state in, and that have resources.
fn local_states(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            local_states(&path, found);
        } else if kind.is_file() && entry.file_name().to_string_lossy().contains(".tfstate") {
            let state: Value = serde_json::from_slice(&fs::read(&path).expect("it can be read")).unwrap_or_default();
            if !list(&state["resources"]).is_empty() {
                found.push(path);
            }
        }
    }
}

/// Secrets are in Parameter Store, encrypted, and not in the state.
fn no_secret_is_in(state: &Value, cloud: &Cloud, certificate: &str) {
    let secret = |name: &str| {
        let name = format!("/sipedge/twilio-bridge/load-balanced/{name}");
        let parameter = cloud.moto.ask("ssm", "get_parameter", json!({ "Name": name, "WithDecryption": true }));
        assert_eq!(parameter["Parameter"]["Type"], "SecureString", "{name}");
        text(&parameter["Parameter"]["Value"])
    };
    assert_eq!(secret("certificates/edge"), certificate);
    let keys: Value = serde_json::from_str(&secret("token-keys")).expect("JSON");
    let mut secrets = texts(&keys["tokens"], "key");
    assert!(!secrets.is_empty(), "there is a token key");
    secrets.push(text(&keys["branch"]));
    secrets.push(secret("answerer"));
    // A line of the private key: the state has line ends in another spelling.
    let key = certificate.split("PRIVATE KEY-----").nth(1).and_then(|key| key.lines().nth(1)).expect("a key");
    secrets.push(key.to_owned());
    let state = state.to_string();
    for secret in secrets {
        assert!(secret.len() >= 32, "a secret is long: {}", secret.len());
        assert!(!state.contains(&secret), "the state has a secret");
    }
}

/// Names, types and values in the zone, without those that every zone has.
fn records(cloud: &Cloud, zone: &str) -> BTreeMap<(String, String), BTreeSet<String>> {
    let found = cloud.moto.ask("route53", "list_resource_record_sets", json!({ "HostedZoneId": zone }));
    let sets = list(&found["ResourceRecordSets"]).into_iter();
    let named = sets.map(|set| {
        let values: BTreeSet<String> = texts(&set["ResourceRecords"], "Value").into_iter().collect();
        ((text(&set["Name"]), text(&set["Type"])), values)
    });
    named.filter(|((_, kind), _)| kind != "NS" && kind != "SOA").collect()
}

/// RFC 3263: the addresses, and for each transport its port.
fn names_are_right(cloud: &Cloud, zone: &str, outputs: &Value) {
    let record = |name: &str, kind: &str, values: Vec<String>| {
        let values: BTreeSet<String> = values.into_iter().collect();
        ((name.to_owned(), kind.to_owned()), values)
    };
    let ingress: Vec<String> = list(&outputs["ingress_addresses"]).iter().map(text).collect();
    assert_eq!(ingress.len(), 3, "{outputs}");
    let expected = BTreeMap::from([
        record("sip.example.com.", "A", ingress),
        record("_sip._udp.sip.example.com.", "SRV", vec!["10 10 5060 sip.example.com".to_owned()]),
        record("_sip._tcp.sip.example.com.", "SRV", vec!["10 10 5060 sip.example.com".to_owned()]),
        record("_sips._tcp.sip.example.com.", "SRV", vec!["10 10 5061 sip.example.com".to_owned()]),
    ]);
    assert_eq!(records(cloud, zone), expected);
    assert_eq!(outputs["dns_names"].as_array().map(Vec::len), Some(4), "{outputs}");
}

/// Plain SIP and TLS, each with targets of its own, which are all instances.
fn listeners_are_right(cloud: &Cloud, outputs: &Value) {
    let balancers = cloud.moto.ask("elbv2", "describe_load_balancers", json!({}));
    let asked = json!({ "LoadBalancerArn": balancers["LoadBalancers"][0]["LoadBalancerArn"] });
    let found = cloud.moto.ask("elbv2", "describe_listeners", asked);
    let listeners: BTreeMap<u64, Value> = list(&found["Listeners"])
        .into_iter()
        .map(|listener| (listener["Port"].as_u64().unwrap_or_default(), listener))
        .collect();
    assert_eq!(listeners.keys().copied().collect::<Vec<_>>(), [5060, 5061], "{found}");
    for (port, protocol) in [(5060_u64, "TCP_UDP"), (5061, "TCP")] {
        let listener = &listeners[&port];
        assert_eq!(listener["Protocol"], protocol, "{listener}");
        let arn = &listener["DefaultActions"][0]["TargetGroupArn"];
        assert_eq!(*arn, outputs["target_group_arns"][port.to_string()], "{listener}");
        let groups = cloud.moto.ask("elbv2", "describe_target_groups", json!({ "TargetGroupArns": [arn] }));
        let group = &groups["TargetGroups"][0];
        assert_eq!((&group["Protocol"], &group["Port"]), (&json!(protocol), &json!(port)), "{group}");
        assert_eq!((&group["HealthCheckProtocol"], &group["HealthCheckPath"]), (&json!("HTTP"), &json!("/readyz")));
        let health = cloud.moto.ask("elbv2", "describe_target_health", json!({ "TargetGroupArn": arn }));
        let targets = list(&health["TargetHealthDescriptions"]);
        let instances: BTreeSet<String> = targets.iter().map(|target| text(&target["Target"]["Id"])).collect();
        assert_eq!(instances.len(), 3, "the example's least: {health}");
    }
}

/// A NAT gateway with two addresses in each zone, which is the way out of that zone's private subnet.
fn every_zone_has_its_way_out(cloud: &Cloud, outputs: &Value) {
    let filter = json!({ "Filters": [{ "Name": "tag:sipedge:topology", "Values": ["load-balanced"] }] });
    let subnets = cloud.moto.ask("ec2", "describe_subnets", filter.clone());
    let zone_of: BTreeMap<String, String> = list(&subnets["Subnets"])
        .iter()
        .map(|subnet| (text(&subnet["SubnetId"]), text(&subnet["AvailabilityZone"])))
        .collect();
    let mut addresses = BTreeSet::new();
    let mut gateways: BTreeMap<String, String> = BTreeMap::new();
    for gateway in list(&cloud.moto.ask("ec2", "describe_nat_gateways", json!({}))["NatGateways"]) {
        assert_eq!(gateway["State"], "available", "{gateway}");
        let own = texts(&gateway["NatGatewayAddresses"], "PublicIp");
        assert_eq!(own.len(), 2, "{gateway}");
        addresses.extend(own);
        gateways.insert(text(&gateway["NatGatewayId"]), zone_of[&text(&gateway["SubnetId"])].clone());
    }
    assert_eq!(gateways.values().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(ZONES), "{gateways:?}");
    assert_eq!(gateways.len(), 3, "{gateways:?}");
    let told: BTreeSet<String> = list(&outputs["egress_addresses"]).iter().map(text).collect();
    assert_eq!((addresses.len(), &addresses), (6, &told), "carriers are told of all of them");
    assert_eq!(outputs["capacity"]["egress_addresses"], 6, "{outputs}");

    let mut ways = BTreeMap::new();
    for table in list(&cloud.moto.ask("ec2", "describe_route_tables", filter)["RouteTables"]) {
        for gateway in texts(&table["Routes"], "NatGatewayId") {
            for subnet in texts(&table["Associations"], "SubnetId") {
                ways.insert(zone_of[&subnet].clone(), gateways[&gateway].clone());
            }
        }
    }
    let expected = BTreeMap::from(ZONES.map(|zone| (zone.to_owned(), zone.to_owned())));
    assert_eq!(ways, expected, "calls leave in the zone that they are in");
}

/// By mail, by HTTPS and in Slack, which may look at alarms and change nothing.
fn people_are_told(cloud: &Cloud) {
    let topics = texts(&cloud.moto.ask("sns", "list_topics", json!({}))["Topics"], "TopicArn");
    let [topic] = topics.as_slice() else { panic!("one topic: {topics:?}") };
    let told = cloud.moto.ask("sns", "list_subscriptions_by_topic", json!({ "TopicArn": topic }));
    let protocols: BTreeSet<String> = texts(&told["Subscriptions"], "Protocol").into_iter().collect();
    assert_eq!(protocols, BTreeSet::from(["email".to_owned(), "https".to_owned()]), "{told}");
    let channels = cloud.moto.ask("chatbot", "describe_slack_channel_configurations", json!({}));
    let channels = list(&channels["SlackChannelConfigurations"]);
    let [channel] = channels.as_slice() else { panic!("one channel: {channels:#?}") };
    assert_eq!((&channel["SlackTeamId"], &channel["SlackChannelId"]), (&json!("T07EXAMPLE1"), &json!("C07EXAMPLE1")));
    assert_eq!(channel["SnsTopicArns"], json!([topic]), "{channel}");
    assert_eq!(channel["GuardrailPolicyArns"], json!(["arn:aws:iam::aws:policy/CloudWatchReadOnlyAccess"]));
}

/// The spec's tags beside sipedge's own.
fn own_tags_are_everywhere(cloud: &Cloud, topology: &str) {
    let expected =
        [("team", "voice"), ("cost-center", "4711"), ("sipedge:edge", "twilio-bridge"), ("sipedge:topology", topology)];
    let bears = |what: &str, tags: &Value| {
        for (key, value) in expected {
            let found = list(tags).into_iter().find(|tag| tag["Key"] == key);
            assert_eq!(found.map(|tag| text(&tag["Value"])).as_deref(), Some(value), "{what} has {key}: {tags}");
        }
    };
    let filter = [json!({ "Key": "sipedge:edge", "Values": ["twilio-bridge"] })];
    let asked = json!({ "TagFilters": filter, "ResourcesPerPage": 100 });
    let tagged = cloud.moto.ask("resourcegroupstaggingapi", "get_resources", asked);
    let tagged = list(&tagged["ResourceTagMappingList"]);
    assert!(tagged.len() > 10, "moto tells of those: {tagged:#?}");
    for resource in &tagged {
        bears(&text(&resource["ResourceARN"]), &resource["Tags"]);
    }
    for (operation, name) in [
        ("describe_addresses", "Addresses"),
        ("describe_nat_gateways", "NatGateways"),
        ("describe_launch_templates", "LaunchTemplates"),
    ] {
        let found = list(&cloud.moto.ask("ec2", operation, json!({}))[name]);
        assert!(!found.is_empty(), "{operation}");
        for resource in found {
            bears(operation, &resource["Tags"]);
        }
    }
    for name in ["token-keys", "answerer", "certificates/edge"] {
        let name = format!("/sipedge/twilio-bridge/{topology}/{name}");
        let asked = json!({ "ResourceType": "Parameter", "ResourceId": name });
        bears(&name, &cloud.moto.ask("ssm", "list_tags_for_resource", asked)["TagList"]);
    }
}

/// A network that somebody else has made: in each of three zones a subnet that is connected to the Internet, and one that is not.
struct Network {
    vpc: String,
    public: BTreeMap<String, String>,
    private: BTreeMap<String, String>,
}

impl Network {
    fn make(cloud: &Cloud) -> Self {
        let ask = |operation: &str, arguments: Value| cloud.moto.ask("ec2", operation, arguments);
        let vpc = text(&ask("create_vpc", json!({ "CidrBlock": "10.20.0.0/16" }))["Vpc"]["VpcId"]);
        let internet = ask("create_internet_gateway", json!({}))["InternetGateway"]["InternetGatewayId"].clone();
        ask("attach_internet_gateway", json!({ "InternetGatewayId": internet, "VpcId": vpc }));
        let table = ask("create_route_table", json!({ "VpcId": vpc }))["RouteTable"]["RouteTableId"].clone();
        let route = json!({ "RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": internet });
        ask("create_route", route);
        let subnet = |zone: &str, third: usize| {
            let range = format!("10.20.{third}.0/24");
            let made = ask("create_subnet", json!({ "VpcId": vpc, "CidrBlock": range, "AvailabilityZone": zone }));
            text(&made["Subnet"]["SubnetId"])
        };
        let (mut public, mut private) = (BTreeMap::new(), BTreeMap::new());
        for (index, zone) in ZONES.into_iter().enumerate() {
            let connected = subnet(zone, index);
            ask("associate_route_table", json!({ "RouteTableId": table, "SubnetId": connected }));
            public.insert(zone.to_owned(), connected);
            private.insert(zone.to_owned(), subnet(zone, 100 + index));
        }
        Self { vpc, public, private }
    }

    /// As `aws.vpc` of a spec; JSON is YAML too.
    fn spec(&self) -> Value {
        json!({ "id": self.vpc, "public_subnets": self.public, "private_subnets": self.private })
    }

    /// What is in the VPC, but for security groups, which every edge brings along.
    fn look(&self, cloud: &Cloud) -> Value {
        let within = |operation: &str, filter: &str| {
            let filter = json!({ "Filters": [{ "Name": filter, "Values": [self.vpc] }] });
            cloud.moto.ask("ec2", operation, filter)
        };
        let subnets = within("describe_subnets", "vpc-id");
        // Not whole: how many addresses are free differs with the instances.
        let subnets: Vec<Value> =
            list(&subnets["Subnets"]).iter().map(|subnet| json!([subnet["SubnetId"], subnet["Tags"]])).collect();
        json!({
            "vpc": within("describe_vpcs", "vpc-id")["Vpcs"],
            "subnets": subnets,
            "tables": within("describe_route_tables", "vpc-id")["RouteTables"],
            "internet": within("describe_internet_gateways", "attachment.vpc-id")["InternetGateways"],
        })
    }
}
