//! A stand-in for the parts of AWS that an instance calls. It works every signature out again by its own code, from the request as it
//! came over the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::{digest, hmac};
use serde_json::{Value, json};

use super::imds;

pub const REGION: &str = "eu-central-1";
pub const ROLE: &str = "sipedge-test-role";
pub const INSTANCE: &str = "i-0123456789abcdef0";
pub const GROUP: &str = "sipedge-test-single-ec2";
pub const ALLOCATION: &str = "eipalloc-0123456789abcdef0";

pub struct Aws {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// Credentials of a role.
#[derive(Clone)]
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: String,
}

#[derive(Default)]
pub struct State {
    /// Credentials that are accepted.
    pub keys: Vec<Keys>,
    /// SSM's parameters.
    pub parameters: BTreeMap<String, String>,
    /// IAM actions that the role may not do.
    pub denied: BTreeSet<&'static str>,
    /// So many requests are refused for being too many.
    pub throttled: usize,
    /// So many requests get no answer.
    pub dropped: usize,
    /// Hooks at which the instance waits.
    pub waiting: BTreeSet<&'static str>,
    /// Who has the Elastic IP.
    pub holder: Option<String>,
    /// Each request that was carried out or refused: the action, and what matters of it.
    pub log: Vec<String>,
}

impl Keys {
    /// The ones of this number.
    pub fn new(number: u8) -> Self {
        let (id, secret) = (format!("ASIATEST{number:04}"), format!("planted-secret-key-{number}/+x"));
        Self { id, secret, token: format!("planted-session-token-{number}==") }
    }

    /// The metadata's document for them.
    pub fn document(&self, expiration: &str) -> String {
        let Self { id, secret, token } = self;
        json!({ "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": id,
            "SecretAccessKey": secret, "Token": token, "Expiration": expiration })
        .to_string()
    }
}

impl Aws {
    pub fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // The thread ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream, &mut shared.lock().unwrap());
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    /// Waits until the log has a line that begins with `text`.
    pub fn wait_for(&self, text: &str) {
        let deadline = std::time::Instant::now() + super::DEADLINE;
        while !self.log().iter().any(|line| line.starts_with(text)) {
            assert!(std::time::Instant::now() < deadline, "no {text:?} was asked for: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What the metadata says of an instance with a role, in a group.
pub fn metadata(keys: &Keys, expiration: &str, state: imds::State) -> imds::State {
    let folder = "/latest/meta-data/iam/security-credentials/";
    let paths = [
        (folder.to_owned(), ROLE.to_owned()),
        (format!("{folder}{ROLE}"), keys.document(expiration)),
        ("/latest/meta-data/instance-id".to_owned(), INSTANCE.to_owned()),
        ("/latest/meta-data/placement/region".to_owned(), REGION.to_owned()),
        (imds::LIFECYCLE.to_owned(), "InService".to_owned()),
    ];
    imds::State { paths: paths.into(), ..state }
}

struct Request {
    /// In lower case.
    headers: BTreeMap<String, String>,
    first: String,
    body: Vec<u8>,
}

fn answer(mut stream: TcpStream, state: &mut State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = read(&mut stream)?;
    if state.dropped > 0 {
        state.dropped -= 1;
        return Ok(());
    }
    let (status, body) = state.answer(&request);
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nx-amzn-RequestId: request-1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn read(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let headers: BTreeMap<String, String> = rest
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Request { headers, first: first.to_owned(), body })
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, String) {
        let is_json = request.headers.contains_key("x-amz-target");
        let parameters = if is_json { BTreeMap::new() } else { form(&request.body) };
        let (service, action) = match request.headers.get("x-amz-target") {
            Some(target) => ("ssm", target.strip_prefix("AmazonSSM.").unwrap().to_owned()),
            None => {
                let version = parameters["Version"].as_str();
                let service = if version == "2016-11-15" { "ec2" } else { "autoscaling" };
                assert!(service == "ec2" || version == "2011-01-01", "{version}");
                (service, parameters["Action"].clone())
            }
        };
        let problem = |code: &str, message: &str| {
            let body = match service {
                "ssm" => json!({ "__type": format!("com.amazonaws#{code}"), "message": message }).to_string(),
                "ec2" => format!(
                    "<?xml?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
                ),
                _ => format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
                ),
            };
            (400, body)
        };
        if let Err(reason) = self.verify(request, service) {
            self.log.push(format!("{action} not accepted: {reason}"));
            let code = if service == "ec2" { "AuthFailure" } else { "ExpiredTokenException" };
            return problem(code, "The security token included in the request is expired");
        }
        if self.throttled > 0 {
            self.throttled -= 1;
            self.log.push(format!("{action} throttled"));
            return problem(if service == "ssm" { "ThrottlingException" } else { "Throttling" }, "Rate exceeded");
        }
        let iam = format!("{service}:{action}");
        if self.denied.contains(iam.as_str()) {
            self.log.push(format!("{action} denied"));
            let code = if service == "ec2" { "UnauthorizedOperation" } else { "AccessDeniedException" };
            return problem(code, &format!("User: arn:aws:sts::1:assumed-role/{ROLE}/{INSTANCE} is not authorized"));
        }
        match action.as_str() {
            "GetParameter" => {
                let question: Value = serde_json::from_slice(&request.body).unwrap();
                let name = question["Name"].as_str().unwrap();
                self.log.push(format!("{action} {name}"));
                assert_eq!(question["WithDecryption"], true);
                match self.parameters.get(name) {
                    Some(value) => (
                        200,
                        json!({ "Parameter": { "Name": name, "Type": "SecureString", "Value": value, "Version": 1 } })
                            .to_string(),
                    ),
                    None => problem("ParameterNotFound", ""),
                }
            }
            "AssociateAddress" => {
                assert_eq!(parameters["InstanceId"], INSTANCE);
                if parameters["AllocationId"] != ALLOCATION {
                    return problem("InvalidAllocationID.NotFound", "The allocation ID does not exist");
                }
                let takes = parameters["AllowReassociation"] == "true";
                self.log.push(format!("{action} takes={takes}"));
                if !takes && self.holder.as_ref().is_some_and(|holder| holder != INSTANCE) {
                    return problem("Resource.AlreadyAssociated", "resource eipalloc is already associated");
                }
                self.holder = Some(INSTANCE.to_owned());
                (200, "<AssociateAddressResponse><return>true</return></AssociateAddressResponse>".to_owned())
            }
            "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" => {
                assert_eq!(
                    (parameters["AutoScalingGroupName"].as_str(), parameters["InstanceId"].as_str()),
                    (GROUP, INSTANCE)
                );
                let hook = parameters["LifecycleHookName"].clone();
                let result =
                    parameters.get("LifecycleActionResult").map_or(String::new(), |result| format!(" {result}"));
                self.log.push(format!("{action} {hook}{result}"));
                if !self.waiting.contains(hook.as_str()) {
                    return problem("ValidationError", "No active Lifecycle Action found with instance ID");
                }
                if !result.is_empty() {
                    self.waiting.remove(hook.as_str());
                }
                (200, format!("<{action}Response/>"))
            }
            _ => problem("InvalidAction", "no such action"),
        }
    }

    /// Works the signature out, as the IAM User Guide has it.
    fn verify(&self, request: &Request, service: &str) -> Result<(), String> {
        let headers = &request.headers;
        let get = |name: &str| headers.get(name).cloned().ok_or_else(|| format!("no {name}"));
        let authorization = get("authorization")?;
        let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
        let parts: BTreeMap<&str, &str> = rest.split(", ").filter_map(|part| part.split_once('=')).collect();
        let credential: Vec<&str> = parts["Credential"].split('/').collect();
        let [id, day, region, named, end] = credential[..] else { return Err("a strange credential".to_owned()) };
        if (region, named, end) != (REGION, service, "aws4_request") {
            return Err(format!("signed for {named} in {region}"));
        }
        let keys = self.keys.iter().find(|keys| keys.id == id).ok_or_else(|| format!("unknown key {id}"))?;
        if get("x-amz-security-token")? != keys.token {
            return Err("another session token".to_owned());
        }
        let names: Vec<&str> = parts["SignedHeaders"].split(';').collect();
        for needed in ["host", "x-amz-date", "x-amz-security-token", "content-type"] {
            assert!(names.contains(&needed), "{needed} is not signed: {names:?}");
        }
        assert!(!headers.contains_key("x-amz-target") || names.contains(&"x-amz-target"));
        assert!(names.is_sorted());
        let date = get("x-amz-date")?;
        assert!(date.starts_with(day) && date.len() == 16 && date.ends_with('Z'), "{date}");
        let mut first = request.first.split(' ');
        let (method, path) = (first.next().unwrap(), first.next().unwrap());
        let mut canonical = format!("{method}\n{path}\n\n");
        for name in &names {
            canonical += &format!("{name}:{}\n", get(name)?);
        }
        canonical += &format!("\n{}\n{}", parts["SignedHeaders"], hash(&request.body));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", credential[1..].join("/"), hash(canonical.as_bytes()));
        let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let mut key = sign(format!("AWS4{}", keys.secret).as_bytes(), day);
        for part in &credential[2..] {
            key = sign(key.as_ref(), part);
        }
        let expected = hex(sign(key.as_ref(), &text).as_ref());
        assert_eq!(parts["Signature"], expected, "the signature of\n{canonical}");
        Ok(())
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(body).unwrap();
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (plain(name), plain(value))).collect()
}
