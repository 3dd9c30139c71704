//! Reload: the next call goes by the new configuration, calls in progress go on to their end; a refused one changes nothing.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use process::control::{ask, get, reasons, reload};
use process::dns::Dns;
use process::imds::{Imds, State, Trouble};
use process::sip::{Agent, Message};
use process::{DEADLINE, INGRESS, Process, address, config, folder, keys, metric, user_data, wait_for_readyz};
use sipedge_proxy::config::{Advertise, Config, Limits, Target, TlsListener, Trunk};
use sipedge_proxy::engine::{TokenKey, TokenKeys};
use tempfile::TempDir;

struct Stage {
    process: Process,
    config: Config,
    edge: SocketAddr,
    caller: Agent,
    first: Agent,
    second: Agent,
    folder: TempDir,
}

/// A ready proxy whose calls go to `first`. `number`: the first of four addresses.
fn stage(number: u8, change: impl FnOnce(&mut Config)) -> Stage {
    let [edge, caller, first, second] = [0, 1, 2, 3].map(|offset| address(number + offset));
    let [caller, first, second] = [caller, first, second].map(|ip| Agent::bind(ip, 0));
    let mut config = config(edge, caller.address.ip(), first.address);
    change(&mut config);
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    Stage { process, config, edge: (edge, INGRESS).into(), caller, first, second, folder }
}

impl Stage {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, config: &Config) {
        fs::write(self.path().join("config.yaml"), serde_yaml::to_string(config).unwrap()).unwrap();
    }

    fn write_keys(&self, keys: &TokenKeys) {
        fs::write(self.path().join("token-keys.json"), serde_json::to_string(keys).unwrap()).unwrap();
    }

    /// The configuration with its calls going to `second`.
    fn moved(&self) -> Config {
        let mut config = self.config.clone();
        config.trunks[1].targets = vec![Target::new(format!("sip:{}", self.second.address))];
        config
    }

    fn reloaded(&self) -> serde_json::Value {
        let (status, answer) = reload(self.path());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn refused(&self) -> Vec<String> {
        let (status, answer) = reload(self.path());
        assert_eq!(status, 422, "{answer}");
        reasons(&answer)
    }

    fn invite(&self, call_id: &str) {
        let invite = self.caller.request("INVITE", &format!("sip:42@{}", self.edge), call_id);
        self.caller.send(&invite, self.edge);
    }

    /// A call that is up: the caller's 200.
    fn call(&self, callee: &Agent, call_id: &str) -> Message {
        self.invite(call_id);
        let invite = callee.expect("INVITE");
        assert_eq!(invite.header("Call-ID"), call_id);
        callee.respond(&invite, "200 OK");
        let ok = self.caller.expect("200 OK");
        self.caller.acknowledge(&ok, self.edge);
        callee.expect("ACK");
        ok
    }

    fn refuse_call(&self, call_id: &str) {
        self.invite(call_id);
        let refused = self.caller.expect("SIP/2.0 503");
        assert_eq!(refused.header("Call-ID"), call_id);
    }

    fn hang_up(&self, callee: &Agent, ok: &Message) {
        self.caller.hang_up(ok, self.edge);
        let bye = callee.expect("BYE");
        assert_eq!(bye.header("Call-ID"), ok.header("Call-ID"));
        callee.respond(&bye, "200 OK");
        assert_eq!(self.caller.expect("200 OK").header("CSeq"), "2 BYE");
    }
}

#[test]
fn a_changed_target_takes_the_next_call_and_calls_in_progress_stay_where_they_are() {
    let stage = stage(205, |_| {});
    let up = stage.call(&stage.first, "up");
    stage.invite("ringing");
    let ringing = stage.first.expect("INVITE");
    stage.first.respond(&ringing, "180 Ringing");
    stage.caller.expect("180 Ringing");

    stage.write(&stage.moved());
    let answer = stage.reloaded();
    assert_eq!((&answer["changed"], &answer["consequences"]), (&serde_json::json!(["trunks"]), &serde_json::json!([])));
    let next = stage.call(&stage.second, "next");

    stage.first.respond(&ringing, "200 OK");
    let ok = stage.caller.expect("200 OK");
    stage.caller.acknowledge(&ok, stage.edge);
    stage.first.expect("ACK");
    stage.hang_up(&stage.first, &ok);
    stage.hang_up(&stage.first, &up);
    stage.hang_up(&stage.second, &next);
}

#[test]
fn a_mark_turns_new_calls_away_and_outlives_a_reload() {
    let stage = stage(247, |_| {});
    let mut config = stage.moved();
    config.trunks[1].targets.push(Target::new(format!("sip:{}", stage.first.address)));
    stage.write(&config);
    stage.reloaded();
    let mark = |callee: &Agent, mark: &str| {
        let body = serde_json::json!({ "address": callee.address.to_string(), "mark": mark }).to_string();
        let (status, answer) = ask(stage.path(), "POST", "/destinations/mark", &body);
        assert_eq!(status, 200, "{answer}");
    };
    // Several calls each time: one alone might have gone there by chance.
    let all_go_to = |callee: &Agent, round: &str| {
        for number in 0..4 {
            let up = stage.call(callee, &format!("{round}-{number}"));
            stage.hang_up(callee, &up);
        }
    };
    mark(&stage.first, "down");
    all_go_to(&stage.second, "first-down");
    config.timers.invite_ms += 1;
    stage.write(&config);
    stage.reloaded();
    all_go_to(&stage.second, "first-still-down");
    let up = stage.call(&stage.second, "up");
    mark(&stage.first, "in-service");
    mark(&stage.second, "draining");
    all_go_to(&stage.first, "second-draining");
    stage.hang_up(&stage.second, &up);
    mark(&stage.first, "draining");
    stage.refuse_call("none-is-left");
}

#[test]
fn other_name_servers_are_asked_from_then_on() {
    let dns = Dns::start(address(5));
    dns.address("new.example", 60, address(4));
    let stage = stage(1, |_| {});
    let mut config = stage.config.clone();
    config.trunks[1].targets = vec![Target::new(format!("sip:new.example:{}", stage.second.address.port()))];
    config.dns.servers = vec![dns.address];
    stage.write(&config);
    assert_eq!(stage.reloaded()["changed"], serde_json::json!(["dns", "trunks"]));
    let deadline = Instant::now() + DEADLINE;
    // Before the name's first answer there is nowhere to go.
    for number in 0.. {
        let call_id = format!("named-{number}");
        stage.invite(&call_id);
        if let Some(invite) = stage.second.next(Duration::from_millis(50)) {
            assert_eq!(invite.header("Call-ID"), call_id);
            break;
        }
        assert!(Instant::now() < deadline, "no call got there; asked: {:?}", dns.asked());
    }
}

#[test]
fn limits_go_on_counting_by_the_trunk_s_name() {
    let limit = |calls| Limits { calls: Some(calls), ..Limits::default() };
    let stage = stage(209, |config| config.trunks[0].limits = limit(1));
    let first = stage.call(&stage.first, "first");
    stage.refuse_call("over-the-limit");

    // The trunks in another order, and one more in front of them that has a limit, too.
    let mut config = stage.moved();
    config.trunks.reverse();
    config.trunks.insert(0, Trunk { limits: limit(1), ..Trunk::new("third") });
    stage.write(&config);
    stage.reloaded();
    stage.refuse_call("still-over-the-limit");
    stage.hang_up(&stage.first, &first);
    let second = stage.call(&stage.second, "second");
    stage.refuse_call("over-again");

    // A higher limit is in force at once, and a limit on the other trunk counts from here on.
    config.trunks[2].limits = limit(2);
    config.trunks[1].limits = limit(1);
    stage.write(&config);
    stage.reloaded();
    let third = stage.call(&stage.second, "third");
    stage.refuse_call("one-too-many");
    stage.hang_up(&stage.second, &third);
    stage.hang_up(&stage.second, &second);

    // Without the limit nothing is counted, and with it again what is up by then was let go.
    config.trunks[2].limits = limit(1);
    config.trunks[1].limits = Limits::default();
    stage.write(&config);
    stage.reloaded();
    let fourth = stage.call(&stage.second, "fourth");
    config.trunks[2].limits = Limits::default();
    stage.write(&config);
    stage.reloaded();
    config.trunks[2].limits = limit(1);
    stage.write(&config);
    stage.reloaded();
    let fifth = stage.call(&stage.second, "fifth");
    stage.hang_up(&stage.second, &fourth);
    stage.refuse_call("the-fourth-was-not-counted-any-more");
    stage.hang_up(&stage.second, &fifth);
    stage.call(&stage.second, "sixth");
}

#[test]
fn a_refused_configuration_changes_nothing_says_why_and_blocks_nothing() {
    let stage = stage(213, |_| {});
    let file = stage.path().join("config.yaml").display().to_string();
    let good = serde_yaml::to_string(&stage.config).unwrap();
    let hash = get(stage.path(), "/config")["hash"].clone();

    fs::write(&file, good.replace("ingress_port: 5060", "ingress_port: 70000")).unwrap();
    assert_eq!(
        stage.refused(),
        [format!("{file}:5:17: listen.ingress_port: invalid value: integer `70000`, expected u16")]
    );
    stage.process.wait_for_log(&format!("reload refused: {file}:5:17: listen.ingress_port: invalid value"));

    let mut config = stage.moved();
    config.routes[0].to = "nowhere".into();
    config.timers.t1_ms = 0;
    config.drain.accept_ms = 20_000;
    stage.write(&config);
    fs::write(stage.path().join("token-keys.json"), "{").unwrap();
    let reasons = stage.refused();
    for expected in [
        format!("{file}: routes: there is no trunk `nowhere`"),
        format!("{file}: timers.t1_ms: must be at least 1 (RFC 3261 recommends 500)"),
        format!(
            "{file}: drain.grace_ms: 10000: less than accept_ms (20000): the process would end while it still takes calls"
        ),
    ] {
        assert!(reasons.contains(&expected), "no {expected:?} in {reasons:#?}");
    }
    assert!(reasons[3].contains("token-keys.json:1:1: not a token key document"), "{reasons:#?}");
    assert_eq!(reasons.len(), 4, "{reasons:#?}");

    fs::remove_file(&file).unwrap();
    assert_eq!(stage.refused(), [format!("{file}: No such file or directory (os error 2)")]);

    let status = get(stage.path(), "/status");
    assert_eq!((&status["reloads"]["done"], &status["reloads"]["refused"]), (&0.into(), &3.into()));
    assert_eq!(status["configuration"]["hash"], hash);
    assert_eq!(metric(stage.edge.ip(), "sipedge_reloads_refused_total"), 3);
    let call = stage.call(&stage.first, "by-the-old-one");

    stage.write(&stage.moved());
    stage.write_keys(&keys());
    let answer = stage.reloaded();
    assert_ne!(answer["configuration"]["hash"], hash);
    assert_eq!(metric(stage.edge.ip(), "sipedge_reloads_total"), 1);
    stage.call(&stage.second, "by-the-new-one");
    stage.hang_up(&stage.first, &call);
}

#[test]
fn what_takes_a_restart_is_refused_with_every_reason() {
    let stage = stage(217, |_| {});
    let mut config = stage.moved();
    config.listen.address = Some(address(220));
    config.listen.ingress_port = 5061;
    config.listen.egress_port = 5081;
    config.listen.shards = 3;
    config.listen.tcp = !config.listen.tcp;
    config.admin.port = 8081;
    config.advertise = Advertise::Host("edge.example".into());
    config.listen.tls = Some(TlsListener {
        port: 5062,
        certificate: config.secrets.token_keys.clone(),
        client_roots: None,
        require_client: false,
    });
    stage.write(&config);
    let mut other_keys = keys();
    other_keys.branch = "0c".repeat(32);
    stage.write_keys(&other_keys);
    let reasons = stage.refused();
    let edge = stage.edge.ip();
    let bound = "its sockets are bound; a restart takes it up";
    for expected in [
        format!("listen.address: {edge} now, {} in the new one: {bound}", address(220)),
        format!("listen.ingress_port: 5060 now, 5061 in the new one: {bound}"),
        format!("listen.egress_port: 5080 now, 5081 in the new one: {bound}"),
        "listen.shards: 2 now, 3 in the new one: each is a thread with calls of its own; a restart takes it up".into(),
        format!("listen.tcp: false now, true in the new one: {bound}"),
        format!("listen.tls: none now, port 5062 in the new one: {bound}"),
        format!("admin.port: 8080 now, 8081 in the new one: {bound}"),
        format!(
            "advertise: {edge} now, edge.example in the new one: calls in progress come back to it; a restart takes it up"
        ),
        "listen.tls.certificate: !file \"token-keys.json\": no certificate in it".into(),
        "token keys: the branch key is another one".into(),
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(&expected)), "no {expected:?} in {reasons:#?}");
    }
    assert_eq!(reasons.len(), 10, "each once: {reasons:#?}");
    stage.call(&stage.first, "as-before");
}

#[test]
fn sighup_does_the_same_and_its_outcome_is_in_the_log() {
    let stage = stage(221, |_| {});
    fs::write(stage.path().join("config.yaml"), "version: 1\n").unwrap();
    stage.process.signal(Signal::SIGHUP);
    stage.process.wait_for_log("config.yaml:1:1: missing field `edge`");
    stage.process.wait_for_log("the configuration of before stays in force");
    stage.call(&stage.first, "by-the-old-one");

    stage.write(&stage.moved());
    stage.process.signal(Signal::SIGHUP);
    stage.process.wait_for_log("configuration reloaded");
    stage.call(&stage.second, "by-the-new-one");
    let last = get(stage.path(), "/status")["reloads"]["last"].clone();
    assert_eq!((&last["trigger"], &last["reasons"]), (&"SIGHUP".into(), &serde_json::json!([])));
}

#[test]
fn keys_are_rotated_while_calls_are_up() {
    let key = |id: u8| TokenKey { id, key: format!("{id:02x}").repeat(32) };
    let with = |tokens: Vec<TokenKey>| TokenKeys { tokens, ..keys() };
    let stage = stage(225, |_| {});
    let old_key = keys().tokens.remove(0);
    let [first, lost] = ["first", "lost"].map(|call_id| stage.call(&stage.first, call_id));

    stage.write_keys(&with(vec![key(2), old_key]));
    assert_eq!(stage.reloaded()["consequences"], serde_json::json!([]));
    let second = stage.call(&stage.first, "second");
    stage.hang_up(&stage.first, &first);

    stage.write_keys(&with(vec![key(3), key(2)]));
    assert_eq!(stage.reloaded()["consequences"], serde_json::json!([]), "nothing was signed with the key that went");
    stage.hang_up(&stage.first, &second);
    stage.caller.hang_up(&lost, stage.edge);
    assert_eq!(stage.caller.expect("SIP/2.0 403").header("Call-ID"), "lost");

    stage.write_keys(&with(vec![key(4)]));
    let consequences = stage.reloaded()["consequences"].to_string();
    assert!(consequences.contains("token key 3: not among the new ones"), "{consequences}");
    stage.process.wait_for_log("reload: token key 3: not among the new ones");
}

#[test]
fn an_instance_that_is_leaving_takes_up_nothing() {
    let mut stage = stage(229, |_| {});
    stage.invite("keeps-it");
    let invite = stage.first.expect("INVITE");
    stage.process.signal(Signal::SIGTERM);
    wait_for_readyz(stage.edge.ip(), 503, &mut stage.process);
    stage.write(&stage.moved());
    assert_eq!(stage.refused(), ["this instance is draining: it ends with the configuration that it has"]);
    stage.first.respond(&invite, "486 Busy Here");
    assert_eq!(stage.process.wait().code(), Some(0), "{}", stage.process.log());
}

#[test]
fn reloads_at_the_same_time_are_done_one_after_the_other() {
    let stage = stage(233, |_| {});
    let (good, bad) = (stage.moved(), "not a configuration");
    let file = stage.path().join("config.yaml");
    let asking = || (0..5).map(|_| reload(stage.path()).0).collect::<Vec<u16>>();
    let outcomes: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(asking)).collect();
        for round in 0..20 {
            let text = if round % 2 == 0 { bad.to_owned() } else { serde_yaml::to_string(&good).unwrap() };
            // Whole or not at all, as an editor or a deployment writes it.
            let new = file.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &file).unwrap();
            stage.process.signal(Signal::SIGHUP);
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.len(), 40);
    assert!(outcomes.iter().all(|status| [200, 422].contains(status)), "{outcomes:?}");
    stage.reloaded();
    let reloads = get(stage.path(), "/status")["reloads"].clone();
    let count = |name: &str| reloads[name].as_u64().unwrap();
    assert!(count("done") + count("refused") >= 41, "every one is counted: {reloads}");
    stage.call(&stage.second, "after-all-that");
}

#[test]
fn a_configuration_from_a_pipe_cannot_be_read_again() {
    let folder = folder(&config(address(237), address(238), "198.51.100.7:5060".parse().unwrap()));
    let file = folder.path().join("config.yaml");
    let mut process = Process::run_in(folder.path());
    wait_for_readyz(address(237), 200, &mut process);
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for _ in 0..2 {
        let (status, answer) = reload(folder.path());
        assert_eq!(status, 422, "{answer}");
        let expected = format!("{}: is no regular file, and cannot be read again; restart with a file", file.display());
        assert_eq!(reasons(&answer), [expected]);
    }
}

#[test]
fn an_instance_reads_its_user_data_again() {
    let [caller, first, second] = [240, 241, 242].map(|number| Agent::bind(address(number), 0));
    let mut config = config(address(239), caller.address.ip(), first.address);
    config.listen.address = None;
    let folder = folder(&config);
    let state =
        State { private: Some(address(239)), user_data: Some(user_data(&config).into_bytes()), ..State::default() };
    let imds = Imds::start(state);
    let (url, secrets) = (imds.url(), folder.path().to_str().unwrap());
    let control = format!("{secrets}/control.sock");
    let mut process = Process::start(["boot", "--metadata", &url, "--secrets", secrets, "--control", &control]);
    wait_for_readyz(address(239), 200, &mut process);
    let edge: SocketAddr = (address(239), INGRESS).into();

    imds.change(|state| state.user_data = Some(b"nonsense".to_vec()));
    let (status, answer) = reload(folder.path());
    let expected = "user-data:1:1: the first line has to be `#sipedge-user-data 1`, but is `nonsense`";
    assert_eq!((status, reasons(&answer)), (422, vec![expected.to_owned()]));

    config.trunks[1].targets = vec![Target::new(format!("sip:{}", second.address))];
    imds.change(|state| {
        state.user_data = Some(user_data(&config).into_bytes());
        state.trouble.push_back(Trouble::Status(503));
    });
    let (status, answer) = ask(folder.path(), "POST", "/reload", "");
    assert_eq!((status, &answer["configuration"]["origin"]), (200, &"user-data".into()), "{answer}");
    caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), "after"), edge);
    assert_eq!(second.expect("INVITE").header("Call-ID"), "after");
}
