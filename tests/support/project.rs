//! What the end-to-end tests share: a project in a folder of its own that leaves nothing behind, and commands with a deadline.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest time that any command of sipedge may take here. A deploy takes seconds; a machine that builds beside it is slower.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
/// Longest time until something that the edge or the lab does by itself is seen.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Longest time until ended processes are gone from the process table.
const GONE_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Names another `sipedge` than the one that this test was built with.
pub const BINARY_VARIABLE: &str = "SIPEDGE_BIN";

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `sipedge` that this test was built with, and beside it a `sipedge-proxy`; or the one that the environment names, as it does for
/// a test that runs as a user who cannot read the folder of the build.
pub fn sipedge() -> &'static Path {
    static SIPEDGE: OnceLock<PathBuf> = OnceLock::new();
    SIPEDGE.get_or_init(|| {
        if let Some(named) = std::env::var_os(BINARY_VARIABLE) {
            return named.into();
        }
        let sipedge = PathBuf::from(env!("CARGO_BIN_EXE_sipedge"));
        let folder = sipedge.parent().expect("the binary is in a folder");
        // Another package's binary: cargo builds it for the tests of the whole workspace, not for those of this package.
        build_unless_there(folder, "sipedge-proxy", &["-p", "sipedge-proxy"]);
        sipedge
    })
}

/// The example program `faulty-edge`, which takes an instance's place and does what it is told to do wrong.
pub fn faulty_edge() -> &'static Path {
    static FAULTY_EDGE: OnceLock<PathBuf> = OnceLock::new();
    FAULTY_EDGE.get_or_init(|| {
        let folder = sipedge().parent().expect("the binary is in a folder");
        // Cargo builds examples for `cargo test`, not for `cargo test --test NAME`.
        build_unless_there(folder, "examples/faulty-edge", &["-p", "sipedge", "--example", "faulty-edge"]);
        folder.join("examples/faulty-edge")
    })
}

/// Builds what is not in the profile's folder yet.
fn build_unless_there(folder: &Path, file: &str, what: &[&str]) {
    if folder.join(file).exists() {
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg("build").args(what).current_dir(repository());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.env("CARGO_TARGET_DIR", folder.parent().expect("the profile's folder is in the target folder"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build {} failed", what.join(" "));
}

/// Whether nothing may be skipped.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says that a test is skipped, which is a failure in CI.
pub fn skip(test: &str, reason: &str) {
    assert!(!in_ci(), "{test} would be skipped, and in CI nothing is: {reason}");
    eprintln!("skipped: {test}: {reason}");
}

/// The first program of that name on PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Why this user cannot have a lab, as far as the machine's settings tell.
pub fn lab_forbidden() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective_user = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if effective_user == Some("0") { None } else { user_namespaces_forbidden() }
}

/// Why a user who is not root cannot have a lab, as far as the machine's settings tell.
pub fn user_namespaces_forbidden() -> Option<String> {
    let settings = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    settings.into_iter().find_map(|(file, forbids)| {
        let value = fs::read_to_string(file).ok()?;
        (value.trim() == forbids).then(|| format!("{file} is {forbids}"))
    })
}

/// Awaits a condition.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "did not happen within {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { command, code: got, stdout, stderr } = &self;
        assert_eq!(*got, code, "`{command}` exited with {got}, not {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}`: no JSON ({error}): {}", self.command, self.stdout))
    }

    /// Standard output as one JSON value per line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let read = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("`{}`: no JSON ({error}): {line}", self.command))
        };
        self.stdout.lines().map(read).collect()
    }

    /// The `error` of standard error, which has to be one JSON object.
    #[track_caller]
    pub fn json_error(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stderr)
            .unwrap_or_else(|error| panic!("`{}`: no JSON ({error}): {}", self.command, self.stderr));
        let error = value["error"].clone();
        assert_eq!(error["exit_code"], self.code, "{value}");
        error
    }

    /// The texts of a deploy's notes.
    pub fn notes(&self) -> Vec<String> {
        let lines = self.json_lines();
        let notes = lines.iter().filter(|line| line["event"] == "note");
        notes.filter_map(|note| note["text"].as_str().map(str::to_owned)).collect()
    }
}

/// A command that runs; its lines of standard output arrive as they are written.
pub struct Running {
    command: String,
    child: Child,
    lines: Receiver<String>,
    rest: Receiver<String>,
    seen: String,
    begun: Instant,
    deadline: Duration,
}

impl Running {
    pub fn start(command: Command) -> Self {
        Self::start_with_deadline(command, COMMAND_DEADLINE)
    }

    pub fn start_with_deadline(mut command: Command, deadline: Duration) -> Self {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stderr = child.stderr.take().expect("standard error is a pipe");
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // The test may have seen enough.
                let _ = line.send(String::from_utf8_lossy(&text).into_owned());
            }
        });
        let (whole, rest) = channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            let _ = whole.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        Self { command: name, child, lines, rest, seen: String::new(), begun: Instant::now(), deadline }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a JSON line that `wanted` accepts.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) {
        loop {
            let left = self.deadline.saturating_sub(self.begun.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("`{}` never said {what}; it said:\n{}", self.command, self.seen);
            };
            self.seen.push_str(&line);
            self.seen.push('\n');
            if serde_json::from_str(&line).is_ok_and(|value| wanted(&value)) {
                return;
            }
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        // It may have ended by itself in the meantime.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn finish(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            if self.begun.elapsed() > self.deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("`{}` did not end within {:?}; it said:\n{}", self.command, self.deadline, self.seen);
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        let ended = Instant::now();
        loop {
            match self.lines.recv_timeout(GONE_DEADLINE.saturating_sub(ended.elapsed())) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    panic!("`{}` ended, but a process that it left holds its standard output", self.command)
                }
            }
        }
        let stderr = self.rest.recv_timeout(GONE_DEADLINE).unwrap_or_else(|_| {
            panic!("`{}` ended, but a process that it left holds its standard error", self.command)
        });
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ran { command: self.command.clone(), code, stdout: std::mem::take(&mut self.seen), stderr }
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: Command) -> Ran {
    Running::start(command).finish()
}

/// A folder with a spec. When it is dropped, what was deployed from it is destroyed.
pub struct Project {
    folder: tempfile::TempDir,
    interfaces: BTreeSet<String>,
}

impl Project {
    /// With the spec of `examples/carrier-bridge.yaml`.
    pub fn new() -> Self {
        let spec =
            fs::read_to_string(repository().join("examples/carrier-bridge.yaml")).expect("the example can be read");
        Self::with_spec(&spec)
    }

    /// [`Project::new`] for a test that needs a lab; none when the machine cannot have one.
    pub fn with_lab(test: &str) -> Option<Self> {
        match lab_forbidden() {
            Some(reason) if !in_ci() => {
                skip(test, &reason);
                None
            }
            // In CI the deploy itself says what is wrong.
            _ => Some(Self::new()),
        }
    }

    /// With this spec.
    pub fn with_spec(spec: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("sipedge-test-").tempdir().expect("a temporary folder");
        let project = Self { folder, interfaces: interfaces() };
        project.write_spec(spec);
        project
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn spec(&self) -> String {
        fs::read_to_string(self.folder().join("sipedge.yaml")).expect("the spec can be read")
    }

    pub fn write_spec(&self, spec: &str) {
        fs::write(self.folder().join("sipedge.yaml"), spec).expect("the spec can be written");
    }

    /// A shell script in the project's folder.
    pub fn script(&self, name: &str, commands: &str) -> PathBuf {
        let file = self.folder().join(name);
        fs::write(&file, format!("#!/bin/sh\n{commands}\n")).expect("the script can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("the script can be made executable");
        file
    }

    /// The state folder of a topology of the example's edge.
    pub fn state(&self, topology: &str) -> PathBuf {
        self.folder().join(".sipedge/twilio-bridge").join(topology)
    }

    /// `sipedge` with these arguments, in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(sipedge());
        command.args(arguments).current_dir(self.folder()).env_remove("SIPEDGE_LOG").env("NO_COLOR", "1");
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Deploys to the lab, which has to succeed.
    #[track_caller]
    pub fn deploy(&self, topology: &str) -> Ran {
        self.run(&["deploy", topology, "--target", "lab", "--json"]).expect(0)
    }

    /// The status of one topology that is deployed.
    #[track_caller]
    pub fn status(&self, topology: &str) -> Value {
        let all = self.run(&["status", "--json"]).json();
        let topologies = all["topologies"].as_array().cloned().unwrap_or_default();
        topologies
            .into_iter()
            .find(|status| status["topology"] == topology)
            .unwrap_or_else(|| panic!("{topology} is not in the status: {all}"))
    }

    /// Process ids of the instances that run, by name.
    #[track_caller]
    pub fn instances(&self, topology: &str) -> Vec<(String, i64)> {
        let status = self.status(topology);
        let instances = status["lab"]["instances"].as_array().cloned().unwrap_or_default();
        instances
            .iter()
            .filter_map(|instance| Some((instance["id"].as_str()?.to_owned(), instance["pid"].as_i64()?)))
            .collect()
    }

    #[track_caller]
    pub fn supervisor(&self, topology: &str) -> i64 {
        let status = self.status(topology);
        status["lab"]["supervisor_pid"].as_i64().unwrap_or_else(|| panic!("no supervisor: {status}"))
    }

    /// Fails if a process, a mount, a network interface or a file of this project is left.
    #[track_caller]
    pub fn assert_no_trace(&self) {
        let begun = Instant::now();
        loop {
            let left = processes_of(self.folder());
            if left.is_empty() {
                break;
            }
            assert!(begun.elapsed() < GONE_DEADLINE, "processes are left: {left:#?}");
            std::thread::sleep(LOOK_AGAIN);
        }
        let state = self.folder().join(".sipedge");
        assert!(!state.exists(), "files are left: {:#?}", files_in(&state));
        let folder = self.folder().to_string_lossy();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
        let mounts: Vec<&str> = mounts.lines().filter(|line| line.contains(&*folder)).collect();
        assert!(mounts.is_empty(), "mounts are left: {mounts:#?}");
        let new: Vec<String> = interfaces().difference(&self.interfaces).cloned().collect();
        assert!(new.is_empty(), "network interfaces are left: {new:?}");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Only for tests that failed: the others have destroyed what they deployed, and have looked.
        if self.folder().join(".sipedge").exists() {
            let _ = self.command(&["destroy"]).stdin(Stdio::null()).output();
        }
        for (pid, _) in processes_of(self.folder()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Processes that have `folder` in their command line, environment or working directory.
pub fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let needle = folder.to_string_lossy().into_owned().into_bytes();
    let contains = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc can be read").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if u32::try_from(pid) == Ok(own) {
            continue;
        }
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command_line = read("cmdline");
        let folder_of = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if contains(&command_line) || contains(&read("environ")) || folder_of.starts_with(folder) {
            found.push((pid, String::from_utf8_lossy(&command_line).replace('\0', " ")));
        }
    }
    found
}

/// Ends one process by its id and waits until it is gone.
#[track_caller]
pub fn kill_process(pid: i64) {
    let pid = i32::try_from(pid).expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    eventually("a process that got SIGKILL is gone", || !is_alive(pid));
}

fn interfaces() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_in(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}
