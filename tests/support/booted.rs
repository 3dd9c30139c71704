//! An instance of the group of single-ec2 as a process: `sipedge-proxy boot`, with the user data of its launch template, secrets from moto's
//! Parameter Store and hooks of moto's group. moto has no packets: the process is at the ingress address itself, which is one of
//! 127.0.0.0/8, and moto is told that this is the instance's private address, by which its answers name it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cloud::project::sipedge;
use crate::cloud::{Cloud, from_base64};

/// Group and launch template of the example's edge.
const GROUP: &str = "sipedge-twilio-bridge-single-ec2";

/// Longest time until the group has launched an instance that gets ready: Terraform may have everything else to make before.
const LAUNCHED: Duration = Duration::from_secs(600);

/// Between two looks at the group.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// For one request to the metadata.
const REQUEST: Duration = Duration::from_secs(5);

/// The proxy's words when the group lets its instance in.
const LET_IN: &str = "lifecycle action completed";

const ROLE: &str = "sipedge-test-role";

/// A running instance. Its end is not seen by the group, as that of a process is not on AWS.
pub(crate) struct Booted {
    pub(crate) id: String,
    pub(crate) address: String,
    /// Socket of its control endpoint, in the folder that is removed with it.
    #[allow(dead_code, reason = "each test file uses its part of this module")]
    pub(crate) control: PathBuf,
    process: Child,
    log: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Booted {
    /// Waits until the group has launched an instance that is not among `known`, boots it in the place of `before`, and returns when the
    /// group has let it in. `moved` is given its user data and returns what it is to find.
    #[track_caller]
    pub(crate) fn launched(
        cloud: &Cloud,
        known: &mut BTreeSet<String>,
        mut before: Option<Self>,
        moved: &dyn Fn(&str) -> String,
    ) -> Self {
        let begun = Instant::now();
        loop {
            let waits = |member: &Value| member["LifecycleState"] == "Pending:Wait" && !known.contains(&id(member));
            if let Some(member) = members(cloud).into_iter().find(waits) {
                known.insert(id(&member));
                drop(before.take());
                let booted = Self::boot(cloud, &member, moved);
                if booted.is_let_in(cloud) {
                    return booted;
                }
            }
            assert!(begun.elapsed() < LAUNCHED, "no new instance got ready: {:#?}", members(cloud));
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn boot(cloud: &Cloud, member: &Value, moved: &dyn Fn(&str) -> String) -> Self {
        let id = id(member);
        let address = ingress_address(cloud);
        cloud.moto.wish("address", &json!({ "instance": id, "address": address }));
        let role = "/latest/meta-data/iam/security-credentials/";
        let keys = json!({
            "Code": "Success", "AccessKeyId": "testing", "SecretAccessKey": "testing", "Token": "testing",
            "Expiration": "2099-01-01T00:00:00Z",
        });
        let documents = BTreeMap::from([
            ("/latest/meta-data/local-ipv4".to_owned(), address.clone()),
            ("/latest/meta-data/instance-id".to_owned(), id.clone()),
            ("/latest/meta-data/autoscaling/target-lifecycle-state".to_owned(), "InService".to_owned()),
            ("/latest/user-data".to_owned(), moved(&user_data(cloud, member))),
            (role.to_owned(), ROLE.to_owned()),
            (format!("{role}{ROLE}"), keys.to_string()),
        ]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let proxy = sipedge().parent().expect("the binary is in a folder").join("sipedge-proxy");
        let metadata = metadata(documents);
        // What Run Command would run on the instance is run here.
        let control = folder.path().join("control.sock");
        cloud.moto.wish("agent", &json!({ "instance": id, "program": proxy, "control": control }));
        let mut command = Command::new(&proxy);
        cloud.moto.prepare(&mut command);
        let mut process = command
            .args(["boot", "--metadata", metadata.as_str(), "--control"])
            .arg(&control)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sipedge-proxy starts");
        let stderr = process.stderr.take().expect("standard error is a pipe");
        let log = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { id, address, control, process, log, _folder: folder }
    }

    /// Waits until the group lets it in, or has given it up: AWS's time runs fast here, and the hook's is over after some seconds.
    fn is_let_in(&self, cloud: &Cloud) -> bool {
        let begun = Instant::now();
        loop {
            if self.log().contains(LET_IN) {
                return true;
            }
            let is_here = |member: &Value| {
                let state = member["LifecycleState"].as_str().unwrap_or_default();
                id(member) == self.id && !state.starts_with("Terminat")
            };
            if !members(cloud).iter().any(is_here) {
                return false;
            }
            assert!(begun.elapsed() < LAUNCHED, "{} was neither let in nor given up:\n{}", self.id, self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn id(member: &Value) -> String {
    member["InstanceId"].as_str().unwrap_or_default().to_owned()
}

/// The instances of the group; none as long as there is no group.
fn members(cloud: &Cloud) -> Vec<Value> {
    let asked = json!({ "AutoScalingGroupNames": [GROUP] });
    let groups = cloud.moto.ask("autoscaling", "describe_auto_scaling_groups", asked);
    groups["AutoScalingGroups"][0]["Instances"].as_array().cloned().unwrap_or_default()
}

/// The Elastic IP, of which there is one.
fn ingress_address(cloud: &Cloud) -> String {
    let told = cloud.moto.ask("ec2", "describe_addresses", json!({}));
    let address = told["Addresses"][0]["PublicIp"].as_str().unwrap_or_default().to_owned();
    assert!(address.starts_with("127."), "moto's Elastic IPs are loopback addresses: {told}");
    address
}

/// What an instance of that version finds.
fn user_data(cloud: &Cloud, member: &Value) -> String {
    let asked = json!({ "LaunchTemplateName": GROUP, "Versions": [member["LaunchTemplate"]["Version"]] });
    let told = cloud.moto.ask("ec2", "describe_launch_template_versions", asked);
    let encoded = told["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"].as_str();
    from_base64(encoded.unwrap_or_else(|| panic!("no user data: {told}")))
}

/// Starts an instance metadata service, version 2; returns its URL.
fn metadata(documents: BTreeMap<String, String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // The thread ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever asks may be gone.
            let _ = answer(stream, &documents);
        }
    });
    url
}

fn answer(mut stream: TcpStream, documents: &BTreeMap<String, String>) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let found = match (words.next(), words.next()) {
        (Some("PUT"), _) => Some("a-token"),
        (_, Some(path)) => documents.get(path).map(String::as_str),
        _ => None,
    };
    let (status, body) = found.map_or(("404 Not Found", ""), |body| ("200 OK", body));
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
