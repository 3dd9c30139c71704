//! `sipedge secrets rotate` under load loses no call: what was up before goes on, what is set up meanwhile goes on, and a call that bears the
//! old key can be ended until that key is withdrawn.

#[path = "support/edge.rs"]
mod edge;
#[path = "support/project.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edge::{Edge, SIX_LINES, sum};
use serde_json::Value;
use sipedge::verify::agent::{Agent, AgentError, Call, End, Invite, RingingCall, Settings};
use sipedge::verify::trace::Trace;
use support::{Ran, eventually};

const TOPOLOGY: &str = "load-balanced";

/// Calls that are up before the first rotation and are ended after it.
const STANDING: usize = 20;

/// Pause between two calls of the load: some 30 a second.
const PAUSE: Duration = Duration::from_millis(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_loses_no_call() {
    let Some(edge) = Edge::deploy("a_rotation_under_load_loses_no_call", SIX_LINES, TOPOLOGY) else { return };
    let file = edge.project.state(TOPOLOGY).join("secrets/token-keys.json");
    let party = Arc::new(Party::join(&edge));
    let mut standing = Vec::new();
    for index in 0..STANDING {
        standing.push(party.call(index).await.expect("a call before the rotation"));
    }
    let leaked = standing.pop().expect("a call");

    let ended = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (party, ended) = (Arc::clone(&party), Arc::clone(&ended));
        async move {
            let mut calls = Vec::new();
            for index in STANDING.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let party = Arc::clone(&party);
                calls.push(tokio::spawn(async move { party.call(index).await?.hang_up(end_of(index)).await }));
                tokio::time::sleep(PAUSE).await;
            }
            calls
        }
    });

    let rotated = run(&edge, &["secrets", "rotate", "--json"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let lines: Vec<Value> = rotated.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["added", "waiting", "reached", "signs", "waiting", "reached", "token-keys"], "{rotated:?}");
    let keys = &lines[6]["token_keys"];
    assert_eq!((&keys[0]["id"], &keys[0]["signs"], &keys[1]["id"]), (&2.into(), &true.into(), &1.into()));

    // New calls are signed by the new key, and calls of the old one are ended by both ends.
    let fresh = party.call(7_000).await.expect("a call after the rotation");
    for (index, call) in standing.into_iter().enumerate() {
        call.hang_up(end_of(index)).await.expect("a call from before the rotation is ended");
    }
    ended.store(true, Ordering::Relaxed);
    let calls = load.await.expect("the load ends");
    let (count, mut failures) = (calls.len(), Vec::new());
    for call in calls {
        failures.extend(call.await.expect("the task ends").err().map(|error| error.to_string()));
    }
    assert!(failures.is_empty(), "{} of {count} calls were lost: {failures:#?}", failures.len());
    assert!(count > 30, "there was a load: {count} calls");
    let counts: BTreeMap<_, _> = edge.instances().into_iter().map(|id| (id.clone(), edge.counts(&id))).collect();
    assert_eq!(sum(&counts, "refused_token"), 0, "no request in a dialog was refused: {counts:#?}");
    println!("{count} calls during the rotation, {STANDING} before it: none lost");

    // There is no third key while the first may be needed.
    let again = run(&edge, &["secrets", "rotate"]);
    assert_eq!(again.code, 5, "{again:?}");
    assert!(
        again.stderr.contains("the token key 1 signed until") && again.stderr.contains("--finish --force"),
        "{again:?}"
    );
    let due = run(&edge, &["secrets", "rotate", "--finish"]);
    assert_eq!(due.code, 5, "{due:?}");

    let status = run(&edge, &["secrets", "status", "--json"]);
    let document: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(document["rotation"]["phase"], "signing", "{status:?}");
    let instances = document["instances"].as_array().expect("instances");
    assert_eq!(instances.len(), 2, "{document}");
    let both = serde_json::json!([{ "id": 2, "signs": true }, { "id": 1, "signs": false }]);
    assert!(instances.iter().all(|instance| instance["token_keys"] == both), "{document}");

    // Withdrawn at a word: what bears the old key is nobody's, and what bears the new one goes on.
    let secrets = secrets_of(&fs::read_to_string(&file).expect("the token keys"));
    let forced = run(&edge, &["secrets", "rotate", "--finish", "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    until_keys(&edge, &[2]);
    fresh.hang_up(End::Caller).await.expect("a call of the new key is ended");
    let refused = leaked.hang_up(End::Caller).await;
    assert!(refused.is_err(), "the old key is good for nothing");
    // Three keys there were, the branch key among them.
    assert_eq!(secrets.len(), 3);
    let all = [&rotated, &again, &due, &status, &forced].map(|run| format!("{}{}", run.stdout, run.stderr)).concat();
    let journal = fs::read_to_string(edge.project.state(TOPOLOGY).join("journal.json")).expect("the journal");
    let logs = edge.instances().into_iter().flat_map(|id| edge.lab.log(&id, 10_000).expect("a log"));
    let logs = logs.collect::<Vec<_>>().join("\n") + &journal;
    for secret in secrets {
        assert!(!all.contains(&secret) && !logs.contains(&secret), "a key is shown");
    }
    drop(party);
    edge.destroy();
}

#[test]
fn the_next_deploy_withdraws_a_key_that_is_not_needed_any_more_and_a_cut_off_rotation_is_continued() {
    let test = "the_next_deploy_withdraws_a_key_that_is_not_needed_any_more_and_a_cut_off_rotation_is_continued";
    let Some(edge) = Edge::deploy(test, SIX_LINES, TOPOLOGY) else { return };
    let file = edge.project.state(TOPOLOGY).join("secrets/token-keys.json");
    let document = || -> Value { serde_json::from_slice(&fs::read(&file).expect("keys")).expect("JSON") };
    assert_eq!(run(&edge, &["secrets", "rotate"]).code, 0);
    until_keys(&edge, &[2, 1]);
    // As if the old key had last signed two days ago.
    let mut keys = document();
    let until = keys["tokens"][1]["signed_until"].as_u64().expect("a moment");
    keys["tokens"][1]["signed_until"] = (until - 2 * 86_400).into();
    fs::write(&file, keys.to_string()).expect("write");
    let deployed = run(&edge, &["deploy", TOPOLOGY, "--target", "lab"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(deployed.stdout.contains("key 1 withdrawn") || deployed.stderr.contains("key 1 withdrawn"), "{deployed:?}");
    until_keys(&edge, &[2]);

    // As a rotation leaves it that was killed when it had written the state and nothing else.
    let mut keys = document();
    let second = serde_json::json!({ "id": 3, "key": "3c".repeat(32), "made": until });
    keys["tokens"].as_array_mut().expect("keys").push(second);
    fs::write(&file, keys.to_string()).expect("write");
    let status = run(&edge, &["secrets", "status"]);
    assert!(status.stdout.contains("was cut off before the new key signed"), "{status:?}");
    let continued = run(&edge, &["secrets", "rotate"]);
    assert_eq!(continued.code, 0, "{continued:?}");
    until_keys(&edge, &[3, 2]);
    edge.destroy();
}

/// A command, which a test with calls in progress waits for without holding them up.
fn run(edge: &Edge, arguments: &[&str]) -> Ran {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::task::block_in_place(|| edge.project.run(arguments)),
        Err(_) => edge.project.run(arguments),
    }
}

/// Waits until every instance has these keys, the first of which signs.
fn until_keys(edge: &Edge, ids: &[u8]) {
    let line = |(place, id): (usize, &u8)| {
        format!("sipedge_token_key_info{{id=\"{id}\",signs=\"{}\"}} 1", u8::from(place == 0))
    };
    let expected: Vec<String> = ids.iter().enumerate().map(line).collect();
    eventually(&format!("every instance has the keys {ids:?}"), || {
        edge.instances().iter().all(|id| {
            let (_, page) = edge.lab.http_get(id, "/metrics").expect("GET /metrics");
            page.lines().filter(|line| line.starts_with("sipedge_token_key_info")).eq(expected.iter())
        })
    });
}

/// The ends in turn.
fn end_of(index: usize) -> End {
    if index.is_multiple_of(2) { End::Caller } else { End::Callee }
}

/// Everything that is secret in the document of the token keys.
fn secrets_of(text: &str) -> BTreeSet<String> {
    let keys: Value = serde_json::from_str(text).expect("JSON");
    let tokens = keys["tokens"].as_array().expect("keys").iter().map(|key| &key["key"]);
    tokens.chain([&keys["branch"]]).map(|secret| secret.as_str().expect("text").to_owned()).collect()
}

/// Callers at many addresses of the source, and the callees.
struct Party {
    ingress: SocketAddr,
    number: String,
    callers: Vec<Agent>,
    callees: Arc<[Agent]>,
}

impl Party {
    fn join(edge: &Edge) -> Self {
        let trace = Trace::new();
        let route = edge.route();
        let agent = |namespace: &str, address: SocketAddr| {
            let socket = edge.lab.udp_socket(namespace, address).expect("a socket in the carrier's network");
            Agent::new(socket, Settings::default(), &trace).expect("a user agent")
        };
        let callees: Arc<[Agent]> = route.callee.iter().map(|place| agent(&place.namespace, place.address)).collect();
        let is_callee = |address| route.callee.iter().any(|place| place.address.ip() == address);
        let source = edge.plan.proxy.trunks.iter().find(|trunk| trunk.name == route.from).expect("the source trunk");
        let addresses = source.from.iter().flat_map(|range| range.hosts()).filter(|address| !is_callee(*address));
        let callers = addresses.take(STANDING).map(|ip| agent(&route.caller.namespace, (ip, 5060).into())).collect();
        Self { ingress: edge.ingress(), number: route.number.clone(), callers, callees }
    }

    /// A call that is up.
    async fn call(&self, index: usize) -> Result<Call, AgentError> {
        let caller = &self.callers[index % self.callers.len()];
        let invite = Invite::new(self.ingress, &self.number);
        RingingCall::place(caller, &self.callees, &invite).await?.answer().await
    }
}
