//! baresip, led and heard by its control connection (module `ctrl_tcp`): JSON in netstrings.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, Phone, Running, Setting};

/// TCP port of its control connection.
const CONTROL: u16 = 4444;

/// Whether it takes calls by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    AtOnce,
    WhenTold,
}

pub struct Baresip {
    control: TcpStream,
    /// What came on the control connection and has not been read.
    received: Vec<u8>,
    events: Vec<String>,
    running: Running,
    _folder: TempDir,
}

impl Baresip {
    pub fn start(setting: &Setting<'_>, answers: Answers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ip, path) = (setting.ip, folder.path());
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        write("own.pem", setting.certificate);
        write("roots.pem", setting.roots);
        write("contacts", "");
        let mode = if answers == Answers::AtOnce { "auto" } else { "manual" };
        // regint=0: it registers nowhere.
        write("accounts", &format!("<sip:{}@{ip}>;regint=0;answermode={mode}\n", setting.user));
        // The name server is nobody: an agent that asks for a name gets no further than this machine. aubridge is a sound card that is
        // none. No module that speaks STUN, TURN or ICE is loaded.
        let config = format!(
            "sip_listen {ip}:5060\nsip_certificate {own}\nsip_cafile {roots}\nnet_interface {ip}\ndns_server {ip}:53\n\
             ctrl_tcp_listen {ip}:{CONTROL}\ncall_local_timeout 60\ncall_max_calls 4\naudio_player aubridge,nil\n\
             audio_source aubridge,nil\nmodule_path {modules}\nmodule g711.so\nmodule aubridge.so\nmodule_tmp account.so\n\
             module_app menu.so\nmodule_app ctrl_tcp.so\n",
            modules = modules().display(),
            own = path.join("own.pem").display(),
            roots = path.join("roots.pem").display(),
        );
        write("config", &config);
        let arguments = [OsStr::new("-s"), OsStr::new("-f"), path.as_os_str()];
        let mut running = Running::start("baresip", &arguments, &[("HOME", path.as_os_str())]);
        assert!(running.wait_for("baresip is ready"), "it is not ready within {DEADLINE:?}:\n{}", running.written());
        let control = TcpStream::connect_timeout(&SocketAddr::new(ip, CONTROL), DEADLINE).unwrap();
        Self { control, received: Vec::new(), events: Vec::new(), running, _folder: folder }
    }

    /// Takes the call that rings.
    pub fn accept(&mut self) {
        self.command("accept", "");
    }

    /// Puts the call on hold, or takes it back: a re-INVITE each.
    pub fn hold(&mut self, hold: bool) {
        self.command(if hold { "hold" } else { "resume" }, "");
    }

    /// Waits for an event of this type, and returns its parameter.
    pub fn event(&mut self, kind: &str) -> String {
        self.find(kind, |value| value["type"] == *kind)["param"].as_str().unwrap_or_default().to_owned()
    }

    fn command(&mut self, command: &str, parameters: &str) {
        let text = serde_json::json!({ "command": command, "params": parameters }).to_string();
        write!(self.control, "{}:{text},", text.len()).unwrap();
    }

    /// The next message that `wanted` takes; those before it are passed over.
    fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(text) = self.netstring() {
                let value: Value = serde_json::from_str(&text).unwrap();
                self.events.push(text);
                assert!(value["ok"] != false, "a command is refused:\n{}", self.said());
                if wanted(&value) {
                    return value;
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.control.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 4_096];
            match self.control.read(&mut buffer) {
                Ok(length @ 1..) => self.received.extend(&buffer[..length]),
                ended => panic!("no {what} within {DEADLINE:?} ({ended:?}):\n{}", self.said()),
            }
        }
    }

    fn netstring(&mut self) -> Option<String> {
        let colon = self.received.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&self.received[..colon]).unwrap().parse().unwrap();
        let end = colon + 1 + length;
        if self.received.len() <= end {
            return None;
        }
        let text = String::from_utf8(self.received[colon + 1..end].to_vec()).unwrap();
        self.received.drain(..=end);
        Some(text)
    }
}

/// The folder of its modules, which Debian has moved under the architecture's name after version 12.
fn modules() -> PathBuf {
    let library = Path::new("/usr/lib");
    let folders = std::fs::read_dir(library).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.map(|folder| folder.join("baresip/modules")).chain([library.join("baresip/modules")]);
    let mut folders = folders.filter(|folder| folder.join("ctrl_tcp.so").is_file());
    folders.next().expect("a folder with baresip's ctrl_tcp.so")
}

impl Phone for Baresip {
    fn dial(&mut self, uri: &str) {
        self.command("dial", uri);
    }

    /// As a callee it says so when the ACK is there.
    fn established(&mut self) {
        self.event("CALL_ESTABLISHED");
    }

    fn hang_up(&mut self) {
        self.command("hangup", "");
    }

    fn closed(&mut self) {
        self.event("CALL_CLOSED");
    }

    fn said(&self) -> String {
        format!("{}\n{}", self.events.join("\n"), self.running.written())
    }
}
