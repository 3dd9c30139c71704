//! AWS on loopback for tests: the server of `tests/moto`, and an environment that leads to it and to nothing else.
#![allow(dead_code, reason = "each test that uses this file takes another part of it")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Until the server has told its port: it imports Python modules for seconds, on a busy machine for many.
const START: Duration = Duration::from_secs(120);

/// For one request to it.
const REQUEST: Duration = Duration::from_secs(60);

/// Region that tests use.
pub(crate) const REGION: &str = "us-east-1";

/// Variables of the environment that would lead elsewhere, or that some clients of AWS refuse.
const UNSET: [&str; 20] = [
    "ALL_PROXY",
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SESSION_TOKEN",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TF_CLI_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "all_proxy",
    "http_proxy",
    "https_proxy",
];

/// A running server. Ends with the value, and with the test's process in any case.
pub(crate) struct Moto {
    server: Option<Child>,
    port: u16,
    home: PathBuf,
    /// Removes the home folder with the value.
    _folder: Option<TempDir>,
}

impl Moto {
    /// Starts a server; none, and `test` is skipped, where tests/setup has not been run. In CI that is a failure.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let Some(python) = python() else {
            let reason = "there are no Python tools; run tests/setup";
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{test} would be skipped, and in CI nothing is: {reason}"
            );
            eprintln!("skipped: {test}: {reason}");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let home = folder.path().to_owned();
        fs::create_dir(home.join(".aws")).expect("a folder for profiles");
        let profile = "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\nregion = us-east-1\n";
        fs::write(home.join(".aws/config"), profile).expect("a profile can be written");
        let log = File::create(home.join("moto.log")).expect("a log can be made");
        let mut command = Command::new(python);
        command
            .arg(repository().join("tests/moto/server.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        for variable in UNSET {
            command.env_remove(variable);
        }
        let mut server = command.spawn().expect("Python starts");
        let output = server.stdout.take().expect("it has an output");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(output).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(START).unwrap_or_default();
        let port = line.trim().parse().ok();
        let moto = Self { server: Some(server), port: port.unwrap_or_default(), home, _folder: Some(folder) };
        assert!(port.is_some(), "moto's server told no port within {START:?}:\n{}", moto.log());
        Some(moto)
    }

    /// A server that another process has started, for a child of that process.
    pub(crate) fn attach(port: u16, home: PathBuf) -> Self {
        Self { server: None, port, home, _folder: None }
    }

    /// The port on 127.0.0.1 where it answers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Home folder of children, with `.aws/config` in it.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// What a child's environment has to have: this server as AWS, and no other account within reach.
    pub(crate) fn env(&self) -> Vec<(&'static str, OsString)> {
        let home = &self.home;
        vec![
            ("AWS_ACCESS_KEY_ID", "testing".into()),
            ("AWS_CONFIG_FILE", home.join(".aws/config").into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
            ("AWS_ENDPOINT_URL", self.url().into()),
            ("AWS_REGION", REGION.into()),
            ("AWS_SECRET_ACCESS_KEY", "testing".into()),
            ("AWS_SHARED_CREDENTIALS_FILE", home.join(".aws/credentials").into()),
            ("HOME", home.into()),
            ("NO_PROXY", "127.0.0.1,localhost".into()),
        ]
    }

    /// Gives a command this environment, and takes from it what would lead elsewhere.
    pub(crate) fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for variable in UNSET {
            command.env_remove(variable);
        }
        command.envs(self.env())
    }

    /// Has the server do what no user of AWS can (`tests/moto/control.py`).
    pub(crate) fn wish(&self, name: &str, wish: &Value) -> Value {
        let (status, body) = self.post(&format!("/sipedge/{name}"), &wish.to_string());
        assert_eq!(status, 200, "{name} {wish}: {body}\n{}", self.log());
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{name} {wish}: {error}: {body}"))
    }

    /// Lets time pass on that AWS.
    pub(crate) fn advance(&self, seconds: u64) {
        self.wish("advance", &json!({ "seconds": seconds }));
    }

    /// Asks that AWS by boto3, in boto3's spelling.
    pub(crate) fn ask(&self, service: &str, operation: &str, arguments: Value) -> Value {
        self.wish("ask", &json!({ "service": service, "operation": operation, "arguments": arguments }))
    }

    /// Asks for what that AWS refuses; returns its words.
    pub(crate) fn refusal(&self, service: &str, operation: &str, arguments: Value) -> String {
        let wish = json!({ "service": service, "operation": operation, "arguments": arguments });
        let (status, body) = self.post("/sipedge/ask", &wish.to_string());
        assert_eq!(status, 400, "{wish} is not refused: {body}");
        body
    }

    /// How often an action was asked for, such as `ssm:PutParameter`.
    pub(crate) fn calls(&self, action: &str) -> u64 {
        self.wish("calls", &json!({})).get(action).and_then(Value::as_u64).unwrap_or_default()
    }

    /// What the server has said about its troubles.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("moto.log")).unwrap_or_default()
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, REQUEST).expect("moto's server takes connections");
        stream.set_read_timeout(Some(REQUEST)).expect("a time limit can be set");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("a request can be sent");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .unwrap_or_else(|error| panic!("no answer to {path}: {error}\n{}", self.log()));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, body.to_owned())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Asks `question` until it gives an answer; AWS's time passes meanwhile.
pub(crate) fn until<T>(what: &str, limit: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The Python of the tools that tests/setup has installed.
pub(crate) fn python() -> Option<PathBuf> {
    let tools = std::env::var_os("SIPEDGE_TEST_TOOLS").map(PathBuf::from).unwrap_or_else(|| {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| repository().join("target"), PathBuf::from)
            .join("test-tools")
    });
    Some(tools.join("venv/bin/python")).filter(|python| python.exists())
}

/// The folder that has tests/moto in it: this package's, or the one of the workspace.
fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("tests/moto/server.py").exists()).unwrap_or(package).to_owned()
}
