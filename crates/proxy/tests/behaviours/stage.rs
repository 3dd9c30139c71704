//! The stage of a behaviour: an edge, a caller and callees, all on loopback addresses of their own.

#![allow(dead_code, unused_imports, reason = "each behaviour uses its part of this module")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sipedge_proxy::config::{Config, Target, Timers, Trunk};
use tempfile::TempDir;

pub(crate) use crate::message::{Dialog, Message, uri_of};
pub(crate) use crate::peer::{Listener, Peer, Received};
use crate::process::{self, INGRESS, Process};
pub(crate) use crate::process::{DEADLINE, EGRESS};

/// T1 of the edge. 64 × T1, after which finished transactions and silent branches are over, is 1.28 s.
pub(crate) const T1: Duration = Duration::from_millis(20);

/// A running edge with a caller, which is trunk 0, `source`, and callees, which are the targets of trunk 1, `destination`, in their order.
pub(crate) struct Stage {
    /// Where the edge takes requests.
    pub(crate) edge: SocketAddr,
    pub(crate) caller: Peer,
    pub(crate) callees: Vec<Peer>,
    pub(crate) process: Process,
    folder: TempDir,
}

impl Stage {
    /// Starts an edge whose configuration is [`Stage::config`] after `change`, and waits until it is ready.
    pub(crate) fn start(callees: usize, change: impl FnOnce(&mut Config)) -> Self {
        let caller = Peer::udp(loopback());
        let callees: Vec<Peer> = (0..callees).map(|_| Peer::udp(loopback())).collect();
        let targets: Vec<SocketAddr> = callees.iter().map(|callee| callee.address).collect();
        let mut config = Self::config(loopback(), caller.address.ip(), &targets);
        change(&mut config);
        let edge = SocketAddr::new(config.listen.address.unwrap(), config.listen.ingress_port);
        let (mut process, folder) = Process::run(&config);
        process::wait_for_readyz(edge.ip(), 200, &mut process);
        Self { edge, caller, callees, process, folder }
    }

    /// A carrier bridge with small timers.
    pub(crate) fn config(edge: IpAddr, caller: IpAddr, callees: &[SocketAddr]) -> Config {
        let mut config = process::config(edge, caller, SocketAddr::new(edge, INGRESS));
        config.trunks[1].targets = callees.iter().map(|callee| Target::new(format!("sip:{callee}"))).collect();
        let t1_ms = T1.as_millis() as u32;
        config.timers = Timers { t1_ms, t2_ms: 8 * t1_ms, t4_ms: 10 * t1_ms, ..config.timers };
        config
    }

    /// The folder of its configuration, its secrets and its control endpoint.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The callees, all of them by name.
    pub(crate) fn callees<const COUNT: usize>(&self) -> [&Peer; COUNT] {
        self.callees.iter().collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("there are not {COUNT} callees"))
    }

    /// The URI of `user` at the edge: what a caller calls.
    pub(crate) fn uri(&self, user: &str) -> String {
        format!("sip:{user}@{}", self.edge)
    }

    /// An INVITE to `bob` at the edge: a call, a Call-ID and a branch of its own.
    pub(crate) fn invite(&self) -> Message {
        self.caller.request("INVITE", &self.uri("bob"))
    }

    /// Sends the caller's request to the edge.
    pub(crate) fn call(&self, request: &Message) {
        self.caller.send(request, self.edge);
    }

    /// Sets up a call from the caller to the first callee, up to and with the ACK. Returns the caller's and the callee's dialog.
    pub(crate) fn answered_call(&self) -> (Dialog, Dialog) {
        let callee = &self.callees[0];
        let invite = self.invite();
        self.call(&invite);
        let arrived = callee.expect("INVITE");
        let answer = callee.respond(&arrived, "200 OK");
        let ok = self.caller.expect("200 OK");
        let dialogs = (Dialog::of_caller(&invite, &ok), Dialog::of_callee(&arrived, &answer));
        self.caller.send_by_route(&dialogs.0.ack(&self.caller));
        callee.expect("ACK");
        dialogs
    }

    /// Returns when the edge has handled all that the caller has sent before in this call: it answers an OPTIONS with the same Call-ID,
    /// which the same shard handles after it.
    pub(crate) fn sync(&self, call_id: &str) {
        let options = self.caller.request("OPTIONS", &format!("sip:{}", self.edge)).with("Call-ID", call_id);
        self.call(&options);
        self.caller.expect_that("200 to OPTIONS", |it| it.answers(&options));
    }

    /// A metric's value, such as that of `sipedge_loops_total`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        process::metric(self.edge.ip(), name)
    }

    /// Waits until a metric has at least this value: the edge publishes it a little after the event.
    pub(crate) fn wait_for_metric(&self, name: &str, least: u64) {
        self.wait_until(name, &format!("at least {least}"), |value| value >= least);
    }

    /// Waits until a gauge has at most this value.
    pub(crate) fn wait_for_metric_down(&self, name: &str, most: u64) {
        self.wait_until(name, &format!("at most {most}"), |value| value <= most);
    }

    fn wait_until(&self, name: &str, wanted: &str, is_reached: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.metric(name);
            if is_reached(value) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {value} after {DEADLINE:?}, not {wanted}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Timers so long that the edge sends nothing again of its own: each further copy has another reason.
pub(crate) fn without_retransmissions(config: &mut Config) {
    config.timers.t1_ms = 20_000;
    config.timers.t2_ms = 40_000;
    config.timers.response_ms = 40_000;
    config.timers.invite_ms = 60_000;
}

/// A trunk with these sources and targets.
pub(crate) fn trunk(name: &str, from: &[IpAddr], targets: &[SocketAddr]) -> Trunk {
    Trunk {
        from: from.iter().map(|ip| (*ip).into()).collect(),
        targets: targets.iter().map(|target| Target::new(format!("sip:{target}"))).collect(),
        ..Trunk::new(name)
    }
}

/// A loopback address that nobody else has, in this process or in another one that asks here.
pub(crate) fn loopback() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The other tests of this crate have addresses from 127.64.0.0 to 127.191.255.255.
        let second = 192 + (std::process::id() % 63) as u8;
        let ip = Ipv4Addr::new(127, second, (number / 250) as u8, (number % 250 + 1) as u8).into();
        // Two processes may have the same second number: who holds this port has the address.
        if let Ok(socket) = UdpSocket::bind((ip, HOLDING_PORT)) {
            HELD.lock().unwrap().push(socket);
            return ip;
        }
    }
}

/// A port that no behaviour uses for anything else; below the range that the kernel gives out.
const HOLDING_PORT: u16 = 9_999;
