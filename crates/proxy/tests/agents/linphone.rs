//! Linphone's telephone for the terminal, led by its standard input.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{DEADLINE, Phone, Running, Setting};

const LOG: &str = "log";

pub struct Linphone {
    running: Running,
    folder: TempDir,
}

impl Linphone {
    /// It takes calls by itself.
    pub fn start(setting: &Setting<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ip, path) = (setting.ip, folder.path());
        // Without this folder for its database it opens no sockets.
        std::fs::create_dir_all(path.join(".local/share/linphone")).unwrap();
        let roots = path.join("roots.pem");
        std::fs::write(&roots, setting.roots).unwrap();
        // Without `ipv6_migration_done` it turns IPv6 on again. No account, no STUN server, no SRV queries; what it asks beyond that (a
        // `connect` of a datagram socket, to see whether there is a route) sends nothing.
        let config = format!(
            "[sip]\nuse_ipv6=0\nipv6_migration_done=1\ncontact=\"{user}\" <sip:{user}@{ip}>\nbind_address={ip}\nsip_port=5060\n\
             sip_tcp_port=5060\nsip_tls_port=5061\nguess_hostname=0\nroot_ca={roots}\nverify_server_certs=1\nverify_server_cn=1\n\
             [net]\ndns_srv_enabled=0\ndns_search_enabled=0\n[rtp]\nbind_address={ip}\naudio_rtp_port=27500\n\
             [misc]\nuuid=00000000-0000-4000-8000-000000000001\n",
            user = setting.user,
            roots = roots.display(),
        );
        let file = path.join("linphonerc");
        std::fs::write(&file, config).unwrap();
        // To a pipe it would write in blocks.
        let arguments = ["-oL", "linphonec", "-a", "-d", "6", "-l"].map(OsStr::new);
        let log = path.join(LOG);
        let arguments = [&arguments[..], &[log.as_os_str(), OsStr::new("-c"), file.as_os_str()]].concat();
        let mut running = Running::start("stdbuf", &arguments, &[("HOME", path.as_os_str())]);
        running.tell("soundcard use files");
        let mut linphone = Self { running, folder };
        linphone.wait_for("Using wav files");
        linphone.wait_for_sockets();
        linphone
    }

    /// It opens them some time after its start, and only its log says so.
    fn wait_for_sockets(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains("transport=TLS") {
            assert!(Instant::now() < deadline, "it opens no sockets within {DEADLINE:?}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for(&mut self, text: &str) {
        assert!(self.running.wait_for(text), "no {text:?} within {DEADLINE:?}:\n{}", self.said());
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join(LOG)).unwrap_or_default()).into_owned()
    }
}

impl Phone for Linphone {
    fn dial(&mut self, uri: &str) {
        self.running.tell(&format!("call {uri}"));
    }

    fn established(&mut self) {
        self.wait_for(" connected.");
    }

    fn hang_up(&mut self) {
        self.running.tell("terminate");
    }

    fn closed(&mut self) {
        self.wait_for(" ended (No error).");
    }

    fn said(&self) -> String {
        format!("{}\n{}", self.log(), self.running.written())
    }
}
