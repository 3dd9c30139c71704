//! SIGTERM: not ready any more, calls in progress go on, exit 0 when nothing is left or the grace period is over.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::sip::{Agent, Message};
use process::{INGRESS, Process, address, config, metric, wait_for_readyz};
use sipedge_proxy::config::Config;

struct Stage {
    process: Process,
    edge: SocketAddr,
    caller: Agent,
    callee: Agent,
    _folder: tempfile::TempDir,
}

/// `first`: the first of three addresses.
fn stage(first: u8, change: impl FnOnce(&mut Config)) -> Stage {
    let [edge, caller, callee] = [first, first + 1, first + 2].map(address);
    let caller = Agent::bind(caller, 0);
    let callee = Agent::bind(callee, 0);
    let mut config = config(edge, caller.address.ip(), callee.address);
    change(&mut config);
    let (mut process, _folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    Stage { process, edge: (edge, INGRESS).into(), caller, callee, _folder }
}

impl Stage {
    fn ip(&self) -> IpAddr {
        self.edge.ip()
    }

    /// A call that rings: the INVITE as the callee got it.
    fn ring(&self, call_id: &str) -> Message {
        self.caller.send(&self.caller.request("INVITE", &format!("sip:42@{}", self.edge), call_id), self.edge);
        let invite = self.callee.expect("INVITE");
        self.callee.respond(&invite, "180 Ringing");
        self.caller.expect("180 Ringing");
        invite
    }
}

#[test]
fn a_call_in_set_up_is_finished_and_then_the_process_ends() {
    let mut stage = stage(40, |_| {});
    let invite = stage.ring("drain-1");
    stage.process.signal(Signal::SIGTERM);
    let body = wait_for_readyz(stage.ip(), 503, &mut stage.process);
    assert_eq!(body, "not ready: draining\n");
    assert_eq!(metric(stage.ip(), "sipedge_draining"), 1);
    assert!(stage.process.is_running());

    stage.callee.respond(&invite, "200 OK");
    let ok = stage.caller.expect("200 OK");
    stage.caller.acknowledge(&ok, stage.edge);
    stage.callee.expect("ACK");
    assert_eq!(stage.process.wait().code(), Some(0), "{}", stage.process.log());
    stage.process.wait_for_log("drained: nothing is in progress");
}

#[test]
fn while_draining_options_and_late_calls_get_503() {
    let mut stage = stage(44, |_| {});
    stage.ring("drain-2");
    stage.process.signal(Signal::SIGTERM);
    wait_for_readyz(stage.ip(), 503, &mut stage.process);
    let uri = format!("sip:{}", stage.edge);
    stage.caller.send(&stage.caller.request("OPTIONS", &uri, "drain-options"), stage.edge);
    stage.caller.expect("SIP/2.0 503");
    stage.caller.send(&stage.caller.request("INVITE", &format!("sip:43@{}", stage.edge), "drain-late"), stage.edge);
    let refused = stage.caller.expect("SIP/2.0 503");
    assert_eq!((refused.header("Call-ID"), refused.header("Retry-After")), ("drain-late", "7"));
}

#[test]
fn calls_are_taken_while_the_load_balancer_sends_them() {
    let mut stage = stage(48, |config| config.drain.accept_ms = 5_000);
    stage.process.signal(Signal::SIGTERM);
    wait_for_readyz(stage.ip(), 503, &mut stage.process);
    stage.ring("drain-accepted");
}

#[test]
fn the_grace_period_ends_a_drain_that_would_not() {
    let mut stage = stage(52, |config| config.drain.grace_ms = 500);
    stage.ring("drain-3");
    let began = Instant::now();
    stage.process.signal(Signal::SIGTERM);
    assert_eq!(stage.process.wait().code(), Some(0), "{}", stage.process.log());
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    stage.process.wait_for_log("grace period over with transactions in progress");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut stage = stage(56, |config| config.drain.accept_ms = 10_000);
    stage.ring("drain-4");
    stage.process.signal(Signal::SIGTERM);
    wait_for_readyz(stage.ip(), 503, &mut stage.process);
    let began = Instant::now();
    stage.process.signal(Signal::SIGINT);
    assert_eq!(stage.process.wait().code(), Some(0), "{}", stage.process.log());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
