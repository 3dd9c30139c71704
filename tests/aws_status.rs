//! `sipedge status` on AWS: calls in progress and the drain, from the proxy of each instance by Run Command; and what is shown when an
//! instance cannot be asked. The proxy is a real one (`support/booted.rs`), and what is asked on its instance is run beside it.

#![cfg(feature = "aws")]

#[path = "support/answerer.rs"]
mod answerer;
#[path = "support/booted.rs"]
mod booted;
#[path = "support/cloud.rs"]
mod cloud;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use answerer::Answerer;
use booted::Booted;
use cloud::Cloud;
use cloud::project::sipedge;
use serde_json::{Value, json};

const TOPOLOGY: &str = "single-ec2";

/// Trunks of the spec, and where they are here: there are no other addresses on this machine.
const MOVED: [(&str, &str); 3] =
    [("198.51.100.0/29", "127.0.77.0/29"), ("192.0.2.16/29", "127.0.77.16/29"), ("192.0.2.18", "127.0.77.18")];
const CALLER: &str = "127.0.77.1:0";
const CALLEE: &str = "127.0.77.18:5062";

/// Longest time for an answer to the caller.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest time until a status shows what calls there are.
const SHOWN: Duration = Duration::from_secs(30);

/// Longest time of a status whose question nobody answers: that of the question is 10 s.
const UNANSWERED: Duration = Duration::from_secs(20);

/// None where there is no Terraform or no moto.
fn stage() -> Option<(Cloud, Booted)> {
    let cloud = Cloud::start("calls_and_drain_are_told_by_each_instance")?;
    cloud.change_spec("{ carrier: twilio }", "{ from: [198.51.100.0/29], limits: { calls: 5 } }");
    let callee = r#"{ from: [192.0.2.16/29], targets: ["sip:192.0.2.18:5062"] }"#;
    cloud.change_spec("{ carrier: twilio, domain: bridge.sip.twilio.com }", callee);
    // An instance gets ready by what its process does, and not by itself.
    cloud.moto.wish("appliances", &json!({ "ready_s": null }));
    let deploying = cloud.start_command(&["deploy", TOPOLOGY, "--yes", "--no-verify", "--json"]);
    let moved = |text: &str| MOVED.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let instance = Booted::launched(&cloud, &mut BTreeSet::new(), None, &moved);
    let ran = deploying.finish();
    assert_eq!(ran.code, 0, "{}\n{}\nthe instance:\n{}", ran.stdout, ran.stderr, instance.log());
    Some((cloud, instance))
}

#[test]
fn calls_and_drain_are_told_by_each_instance() {
    let Some((cloud, instance)) = stage() else { return };
    let idle = member(&cloud);
    let proxy = &idle["proxy"];
    assert_eq!((&proxy["state"], &proxy["calls"], &idle["in_progress"]), (&json!("ready"), &json!(0), &json!(0)));
    assert_eq!(proxy["version"], env!("CARGO_PKG_VERSION"), "{idle}");
    assert_eq!(proxy["configuration"].as_str().map(str::len), Some(16), "{idle}");

    let callee = Answerer::start(UdpSocket::bind(CALLEE).expect("the callee's address is free"));
    let call = Call::set_up(&instance.address);
    shows_calls(&cloud, 1);
    let text = cloud.run(&["status", "--target", "aws"]).expect(0).stdout;
    let row: Vec<&str> =
        text.lines().find(|line| line.contains(&instance.id)).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[row.len() - 4..], ["healthy", "ready", "1", "0"], "{text}");
    a_watched_status_asks_seldom(&cloud);

    for (wish, words) in
        [(json!({ "state": "none" }), "not managed by SSM"), (json!({ "state": "slow" }), "has not ended it")]
    {
        agent(&cloud, &instance, &wish);
        is_not_known(&cloud, words);
    }
    agent(&cloud, &instance, &json!({ "state": "online" }));
    let fault = json!({ "action": "ssm:SendCommand", "code": "AccessDeniedException", "message": "not allowed" });
    cloud.moto.wish("fault", &fault);
    is_not_known(&cloud, "no permission: ssm:SendCommand");
    cloud.moto.wish("fault", &json!({ "action": "ssm:SendCommand", "times": 0 }));

    call.hang_up();
    shows_calls(&cloud, 0);
    assert!(callee.stop().iter().any(|call| call.acknowledged && call.ended), "the callee had a whole call");

    // A call that rings keeps an instance that drains.
    let ringing = Ringing::set_up(&instance.address);
    let proxy = sipedge().parent().expect("the binary is in a folder").join("sipedge-proxy");
    let drained = Command::new(proxy).args(["drain", "--control"]).arg(&instance.control).status();
    assert!(drained.expect("sipedge-proxy starts").success());
    let leaving = member(&cloud);
    assert_eq!(leaving["proxy"]["state"], "draining", "{leaving}");
    assert!(leaving["proxy"]["draining_s"].is_u64(), "{leaving}");
    assert!(leaving["in_progress"].as_u64().is_some_and(|count| count > 0), "{leaving}");
    assert!(cloud.run(&["status"]).expect(0).stdout.contains(" draining for "), "{leaving}");
    drop(ringing);

    // Its process is gone, and the group has not seen it yet.
    drop(instance);
    is_not_known(&cloud, "exit code 8");
}

/// A proxy's own figures are a second old at most.
#[track_caller]
fn shows_calls(cloud: &Cloud, calls: u64) {
    let begun = Instant::now();
    loop {
        let member = member(cloud);
        if member["proxy"]["calls"] == calls {
            return;
        }
        assert!(begun.elapsed() < SHOWN, "not {calls} calls within {SHOWN:?}: {member}");
    }
}

/// Several pictures in some seconds, and one command.
fn a_watched_status_asks_seldom(cloud: &Cloud) {
    cloud.moto.wish("calls/forget", &json!({}));
    let mut watch = cloud.start_command(&["status", "--watch", "--target", "aws", "--json"]);
    let one = |line: &Value| line["topologies"][0].clone();
    watch.wait_for("an answer that is some seconds old", |line| {
        let (age, group) = (one(line)["proxies_age_s"].clone(), one(line)["group"].clone());
        age.as_u64().is_some_and(|age| age >= 4) && group["instances"][0]["proxy"]["calls"] == 1
    });
    watch.kill();
    assert_eq!(cloud.moto.calls("ssm:SendCommand"), 1);
    let pictures = cloud.moto.calls("autoscaling:DescribeAutoScalingGroups");
    assert!(pictures >= 2, "{pictures} pictures");
}

/// Everything else is shown, and in these words why that is not.
#[track_caller]
fn is_not_known(cloud: &Cloud, words: &str) {
    let begun = Instant::now();
    let member = member(cloud);
    assert!(begun.elapsed() < UNANSWERED, "{words}: {:?}", begun.elapsed());
    let unknown = member["proxy"]["unknown"].as_str().unwrap_or_default();
    assert!(unknown.contains(words), "{words}: {member}");
    assert!(member["in_progress"].is_null() && member["version"].is_u64() && member["healthy"] == true, "{member}");
}

/// The one instance, as a status in JSON has it.
#[track_caller]
fn member(cloud: &Cloud) -> Value {
    let status = cloud.status(TOPOLOGY);
    let instances = &status["group"]["instances"];
    assert_eq!(instances.as_array().map(Vec::len), Some(1), "{status}");
    assert!(status["unknown"].is_null() && status["proxies_age_s"].is_u64(), "{status}");
    instances[0].clone()
}

fn agent(cloud: &Cloud, instance: &Booted, wish: &Value) {
    let mut wish = wish.clone();
    wish["instance"] = json!(instance.id);
    cloud.moto.wish("agent", &wish);
}

/// A call that is up, from a trunk that limits calls.
struct Call {
    socket: UdpSocket,
    /// Request-URI and Route of requests in the dialog, and To with its tag.
    uri: String,
    route: String,
    to: String,
}

impl Call {
    #[track_caller]
    fn set_up(edge: &str) -> Self {
        let mut call = Self::begin(edge);
        let ok = call.final_answer("1 INVITE");
        call.to = header(&ok, "To");
        call.uri = header(&ok, "Contact").trim_matches(['<', '>']).to_owned();
        call.route = format!("Route: {}\r\n", header(&ok, "Record-Route"));
        call.send("ACK", 1);
        call
    }

    /// Its INVITE is sent.
    #[track_caller]
    fn begin(edge: &str) -> Self {
        let socket = UdpSocket::bind(CALLER).expect("a free port");
        socket.connect((edge, 5060)).expect("an address");
        socket.set_read_timeout(Some(ANSWER)).expect("a time limit");
        let uri = format!("sip:+12025550123@{edge}");
        let call = Self { socket, to: format!("<{uri}>"), uri, route: String::new() };
        call.send("INVITE", 1);
        call
    }

    #[track_caller]
    fn hang_up(self) {
        self.send("BYE", 2);
        self.final_answer("2 BYE");
    }

    fn send(&self, method: &str, number: u32) {
        let here = self.socket.local_addr().expect("an address");
        let Self { uri, route, to, .. } = self;
        let request = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};rport;branch=z9hG4bKstatus{number}{method}\r\n{route}Max-Forwards: 70\r\n\
             From: <sip:caller@{here}>;tag=caller\r\nTo: {to}\r\nCall-ID: status-{here}\r\nCSeq: {number} {method}\r\n\
             Contact: <sip:caller@{here}>\r\nContent-Length: 0\r\n\r\n"
        );
        self.socket.send(request.as_bytes()).expect("a request can be sent");
    }

    /// The 200 to that request.
    #[track_caller]
    fn final_answer(&self, sequence: &str) -> String {
        let mut buffer = [0; 65_536];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no 200 to {sequence}: {error}"));
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !answer.starts_with("SIP/2.0 1") && header(&answer, "CSeq") == sequence {
                assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
                return answer;
            }
        }
    }
}

/// A call that nobody answers.
struct Ringing {
    _caller: Call,
    _callee: UdpSocket,
}

impl Ringing {
    #[track_caller]
    fn set_up(edge: &str) -> Self {
        let callee = UdpSocket::bind(CALLEE).expect("the callee's address is free");
        callee.set_read_timeout(Some(ANSWER)).expect("a time limit");
        let caller = Call::begin(edge);
        let mut buffer = [0; 65_536];
        let (length, from) = callee.recv_from(&mut buffer).expect("the edge sends the INVITE on");
        let invite = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let copied = ["Via: ", "Record-Route: ", "From: ", "To: ", "Call-ID: ", "CSeq: "];
        let copied: String = invite
            .lines()
            .filter(|line| copied.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}{}\r\n", if line.starts_with("To: ") { ";tag=callee" } else { "" }))
            .collect();
        let ringing = format!("SIP/2.0 180 Ringing\r\n{copied}Content-Length: 0\r\n\r\n");
        callee.send_to(ringing.as_bytes(), from).expect("an answer can be sent");
        loop {
            let length = caller.socket.recv(&mut buffer).expect("the caller hears that it rings");
            if buffer[..length].starts_with(b"SIP/2.0 180") {
                return Self { _caller: caller, _callee: callee };
            }
        }
    }
}

fn header(message: &str, name: &str) -> String {
    let line = message.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {message}")).trim().to_owned()
}
