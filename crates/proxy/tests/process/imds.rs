//! An instance metadata service that answers as a test says.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An instance metadata service, version 2, for one instance.
pub struct Imds {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What it answers. `None`: 404.
#[derive(Default)]
pub struct State {
    pub private: Option<IpAddr>,
    pub public: Option<IpAddr>,
    pub user_data: Option<Vec<u8>>,
    /// What it does with the first requests, before it works.
    pub trouble: VecDeque<Trouble>,
    /// Each request: method and path.
    pub log: Vec<String>,
    /// The token is forgotten after this many uses.
    pub token_uses: Option<usize>,
    /// Further paths, with what they give.
    pub paths: BTreeMap<String, String>,
}

pub enum Trouble {
    Status(u16),
    Silence,
    Close,
}

/// Where an instance finds what its group makes of it.
pub const LIFECYCLE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";

const TOKEN: &str = "a-token==";

impl Imds {
    pub fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // The thread ends with the test process.
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                silent.extend(answer(stream, &mut shared.lock().unwrap()));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }
}

/// Returns a connection that is to stay open unanswered.
fn answer(mut stream: TcpStream, state: &mut State) -> Option<TcpStream> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let request: Vec<&str> = head.lines().next().unwrap().split(' ').collect();
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    state.log.push(format!("{} {}", request[0], request[1]));
    let not_found = (404, Vec::new());
    let text = |value: Option<IpAddr>| value.map(|ip| (200, ip.to_string().into_bytes()));
    let (status, body) = match state.trouble.pop_front() {
        Some(Trouble::Silence) => return Some(stream),
        Some(Trouble::Close) => return None,
        Some(Trouble::Status(status)) => (status, Vec::new()),
        None if request[0] == "PUT" && request[1] == "/latest/api/token" => {
            match header("x-aws-ec2-metadata-token-ttl-seconds") {
                Some(_) => (200, TOKEN.into()),
                None => (400, Vec::new()),
            }
        }
        None if header("x-aws-ec2-metadata-token").as_deref() != Some(TOKEN) => (401, Vec::new()),
        None if state.token_uses == Some(0) => {
            state.token_uses = None;
            (401, Vec::new())
        }
        None => {
            state.token_uses = state.token_uses.map(|uses| uses - 1);
            match request[1] {
                "/latest/meta-data/local-ipv4" => text(state.private).unwrap_or(not_found),
                "/latest/meta-data/public-ipv4" => text(state.public).unwrap_or(not_found),
                "/latest/user-data" => state.user_data.clone().map_or(not_found, |body| (200, body)),
                path => state.paths.get(path).map_or(not_found, |body| (200, body.clone().into_bytes())),
            }
        }
    };
    let _ = write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(&body);
    None
}
