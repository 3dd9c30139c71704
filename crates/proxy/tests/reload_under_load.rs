//! A thousand reloads, each with something else in it, while calls come and go: not one call is lost.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use process::control::{get, reload};
use process::sip::{Agent, Message};
use process::{DEADLINE, INGRESS, Process, address, config, keys, metric, wait_for_readyz};
use sipedge_proxy::config::{Config, Limits, Target};
use sipedge_proxy::engine::{TokenKey, TokenKeys};

const RELOADS: usize = 1_000;

/// All of them together, with whatever else the machine does meanwhile.
const LONGEST: Duration = Duration::from_secs(30);

/// Callers, each with one call at a time.
const CALLERS: usize = 10;

/// Between the beginnings of two calls of one caller: 200 calls per second together.
const PACE: Duration = Duration::from_millis(50);

/// Calls that the last configuration admits.
const LAST_LIMIT: u32 = 3;

/// Ends the other threads however this one ends: the scope waits for them.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The configuration of one reload: another target, another order of trunks, other limits and other keys each time.
fn variant(round: usize, base: &Config, callees: &[Agent; 2]) -> (Config, TokenKeys) {
    let mut config = base.clone();
    config.trunks[0].limits = Limits { calls: Some(1_000 + round as u32), cps: Some(10_000) };
    config.trunks[1].targets = vec![Target::new(format!("sip:{}", callees[round % 2].address))];
    if round.is_multiple_of(3) {
        config.trunks.reverse();
    }
    let second = TokenKey { id: 2, key: "2d".repeat(32) };
    let mut keys = TokenKeys { tokens: vec![keys().tokens.remove(0), second], ..keys() };
    if round.is_multiple_of(5) {
        keys.tokens.reverse();
    }
    (config, keys)
}

/// Answers calls and ends of calls until it is told to stop.
fn answer(callee: &Agent, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = callee.next(Duration::from_millis(50)) else { continue };
        match message.first_line().split(' ').next() {
            Some("INVITE") => {
                callee.respond(&message, "180 Ringing");
                callee.respond(&message, "200 OK");
            }
            Some("BYE") => callee.respond(&message, "200 OK"),
            _ => {}
        }
    }
}

/// The final response to a request of this CSeq and call; whatever else comes is skipped.
fn last_response(caller: &Agent, call_id: &str, cseq: &str) -> Message {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = caller.next(left).unwrap_or_else(|| panic!("{call_id}: nothing came for {cseq}"));
        let is_final = !message.first_line().starts_with("SIP/2.0 1");
        if is_final && message.header("Call-ID") == call_id && message.header("CSeq") == cseq {
            return message;
        }
    }
}

fn place(caller: &Agent, edge: SocketAddr, call_id: &str) -> Message {
    caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), call_id), edge);
    last_response(caller, call_id, "1 INVITE")
}

#[test]
fn a_thousand_reloads_lose_no_call() {
    let edge: SocketAddr = (address(204), INGRESS).into();
    let callees = [245, 246].map(|number| Agent::bind(address(number), 0));
    let base = {
        let mut base = config(edge.ip(), address(244), callees[0].address);
        base.trunks[0].limits.calls = Some(1_000);
        base
    };
    let (mut process, folder) = Process::run(&base);
    wait_for_readyz(edge.ip(), 200, &mut process);
    let write = |round: usize, config: &Config, keys: &TokenKeys| {
        let text = format!("# {round}\n{}", serde_yaml::to_string(config).unwrap());
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        fs::write(folder.path().join("token-keys.json"), serde_json::to_string(keys).unwrap()).unwrap();
    };

    let (stop, finished, done) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
    let calling = |number: usize| {
        let caller = Agent::bind(address(244), 0);
        let mut next = Instant::now();
        let mut calls = 0;
        while !done.load(Ordering::Relaxed) {
            let call_id = format!("load-{number}-{calls}");
            let ok = place(&caller, edge, &call_id);
            assert!(ok.first_line().contains(" 200 "), "{call_id}: {}", ok.first_line());
            caller.acknowledge(&ok, edge);
            // Long enough that several reloads come between the call's set-up and its end.
            std::thread::sleep(PACE / 2);
            caller.hang_up(&ok, edge);
            let ended = last_response(&caller, &call_id, "2 BYE");
            assert!(ended.first_line().contains(" 200 "), "{call_id}: BYE: {}", ended.first_line());
            calls += 1;
            finished.fetch_add(1, Ordering::Relaxed);
            next += PACE;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    };
    let took = std::thread::scope(|scope| {
        let _stop = [SetOnDrop(&stop), SetOnDrop(&done)];
        for callee in &callees {
            let stop = &stop;
            scope.spawn(move || answer(callee, stop));
        }
        let callers: Vec<_> = (0..CALLERS).map(|number| scope.spawn(move || calling(number))).collect();
        let began = Instant::now();
        for round in 0..RELOADS {
            let (config, keys) = variant(round, &base, &callees);
            write(round, &config, &keys);
            let (status, answer) = reload(folder.path());
            assert_eq!(status, 200, "reload {round}: {answer}");
        }
        let took = began.elapsed();
        // Calls go on a little after the last one: what it left behind would show.
        std::thread::sleep(4 * PACE);
        done.store(true, Ordering::Relaxed);
        let ended: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        assert!(ended.iter().all(Result::is_ok), "a call was lost:\n{}", process.log());

        // Every call that was counted has been given back: the limit is exact, not one more and not one less.
        let (mut config, keys) = variant(RELOADS, &base, &callees);
        let source = config.trunks.iter_mut().find(|trunk| trunk.name == "source").unwrap();
        source.limits.calls = Some(LAST_LIMIT);
        write(RELOADS, &config, &keys);
        assert_eq!(reload(folder.path()).0, 200);
        let caller = Agent::bind(address(244), 0);
        let outcomes: Vec<String> = (0..=LAST_LIMIT)
            .map(|number| {
                let response = place(&caller, edge, &format!("limit-{number}"));
                if response.first_line().contains(" 200 ") {
                    caller.acknowledge(&response, edge);
                }
                response.first_line().to_owned()
            })
            .collect();
        let (last, first) = outcomes.split_last().unwrap();
        assert!(first.iter().all(|line| line.contains(" 200 ")) && last.contains(" 503 "), "{outcomes:?}");
        took
    });

    let calls = finished.load(Ordering::Relaxed);
    println!(
        "{RELOADS} reloads in {:.2} s ({:.2} ms each), {calls} calls meanwhile, none lost",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e3 / RELOADS as f64
    );
    assert!(took < LONGEST, "{took:?}");
    assert!(calls > 50, "only {calls} calls: too few to see anything");
    let reloads = get(folder.path(), "/status")["reloads"].clone();
    assert_eq!((&reloads["done"], &reloads["refused"]), (&(RELOADS + 1).into(), &0.into()));
    for lost in ["sipedge_net_hand_over_drops_total", "sipedge_net_kernel_drops_total", "sipedge_refused_token_total"] {
        assert_eq!(metric(edge.ip(), lost), 0, "{lost}");
    }
}
