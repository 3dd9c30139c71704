//! Calls between strict user agents live through what happens to an edge: 20 calls each, and all 20 have to pass.

#[path = "support/edge.rs"]
mod edge;
#[path = "support/project.rs"]
mod support;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edge::{Counts, Edge, SIX_LINES, sum};
use sipedge::target::lab::{InstanceId, Lab};
use sipedge::verify::agent::{Agent, AgentError, Call, End, Invite, RingingCall, Settings};
use sipedge::verify::trace::Trace;
use support::eventually;

const CALLS: usize = 20;
const LOAD_BALANCED: &str = "load-balanced";
const SINGLE_EC2: &str = "single-ec2";

/// Longest drain of an instance whose calls are all answered.
const DRAIN: Duration = Duration::from_secs(20);

/// The six lines with one address at the destination, which is one of the source's ranges, too.
const ONE_ADDRESS: &str = "\
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  source: { carrier: twilio }
  destination: { carrier: twilio, targets: [\"sip:54.172.60.1\"] }
routes:
  - { from: source, to: destination }
";

#[tokio::test]
async fn bye_from_the_caller() {
    hang_up("bye_from_the_caller", SIX_LINES, LOAD_BALANCED, Callers::Addresses, End::Caller).await;
}

#[tokio::test]
async fn bye_from_the_callee() {
    hang_up("bye_from_the_callee", SIX_LINES, LOAD_BALANCED, Callers::Addresses, End::Callee).await;
}

#[tokio::test]
async fn bye_from_the_caller_on_a_single_instance() {
    let test = "bye_from_the_caller_on_a_single_instance";
    hang_up(test, SIX_LINES, SINGLE_EC2, Callers::Addresses, End::Caller).await;
}

#[tokio::test]
async fn bye_from_the_callee_on_a_single_instance() {
    let test = "bye_from_the_callee_on_a_single_instance";
    hang_up(test, SIX_LINES, SINGLE_EC2, Callers::Addresses, End::Callee).await;
}

#[tokio::test]
async fn source_and_destination_on_one_socket() {
    for end in [End::Caller, End::Callee] {
        let test = "source_and_destination_on_one_socket";
        hang_up(test, ONE_ADDRESS, LOAD_BALANCED, Callers::Callee, end).await;
    }
}

#[tokio::test]
async fn source_and_destination_on_one_socket_and_a_single_instance() {
    for end in [End::Caller, End::Callee] {
        let test = "source_and_destination_on_one_socket_and_a_single_instance";
        hang_up(test, ONE_ADDRESS, SINGLE_EC2, Callers::Callee, end).await;
    }
}

#[tokio::test]
async fn spread_by_source_address() {
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\nload_balancer: {{ spreading: source-ip }}\n");
    let carriers = spread("spread_by_source_address", &spec, Callers::Addresses).await;
    assert!(carriers.is_none_or(|count| count > 1), "calls from many addresses are carried by several instances");
}

#[tokio::test]
async fn one_source_address_stays_with_one_instance() {
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\nload_balancer: {{ spreading: source-ip }}\n");
    let carriers = spread("one_source_address_stays_with_one_instance", &spec, Callers::Ports).await;
    assert!(carriers.is_none_or(|count| count == 1), "calls from one address are carried by one instance");
}

#[tokio::test]
async fn spread_by_five_tuple() {
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\nload_balancer: {{ spreading: five-tuple }}\n");
    let carriers = spread("spread_by_five_tuple", &spec, Callers::Ports).await;
    assert!(carriers.is_none_or(|count| count > 1), "calls from one address are carried by several instances");
}

#[tokio::test]
async fn instance_killed_then_bye_from_the_caller() {
    killed_instance("instance_killed_then_bye_from_the_caller", End::Caller).await;
}

#[tokio::test]
async fn instance_killed_then_bye_from_the_callee() {
    killed_instance("instance_killed_then_bye_from_the_callee", End::Callee).await;
}

#[tokio::test]
async fn cancel_by_way_of_another_instance() {
    let Some(edge) = Edge::deploy("cancel_by_way_of_another_instance", SIX_LINES, LOAD_BALANCED) else { return };
    let [first, second] = edge.instances().try_into().expect("two instances");
    let party = Party::join(&edge, Callers::Addresses);
    edge.lab.deregister(&second).expect("deregister");
    // The deploy's own call may have left it a flow from one of the callers' addresses.
    edge.lab.end_flows(&second).expect("end its flows");
    let ringing = party.ring().await;
    edge.lab.register(&second).expect("register");
    edge.lab.deregister(&first).expect("deregister");
    edge.lab.end_flows(&first).expect("end its flows");
    let cancelled = ringing.into_iter().map(|(call_id, call)| (call_id, call.cancel()));
    party.all("CANCEL to the callee, 200 and 487 to the caller", cancelled).await;

    let calls = CALLS as u64;
    let counts = edge.counts_with("cancels_forwarded", calls);
    assert_eq!(counts[&first]["calls_started"], calls, "the INVITEs went by {first}: {counts:#?}");
    assert_eq!(counts[&second]["cancels_forwarded"], calls, "the CANCELs went by {second}: {counts:#?}");
    let counts = edge.counts_with("calls_failed", calls);
    assert_eq!(counts[&first]["calls_failed"], calls, "{first} passed the 487s: {counts:#?}");
    drop(party);
    edge.destroy();
}

#[tokio::test]
async fn calls_go_on_while_and_after_an_instance_drains() {
    let test = "calls_go_on_while_and_after_an_instance_drains";
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\n");
    let Some(edge) = Edge::deploy(test, &spec, LOAD_BALANCED) else { return };
    let party = Party::join(&edge, Callers::Addresses);
    let mut calls = party.place().await;
    let victim = busiest(&edge);
    let (folder, id) = (edge.lab.folder().to_owned(), victim.clone());
    let termination = std::thread::spawn(move || {
        let lab = Lab::attach(&folder).expect("attach").expect("the lab is up");
        lab.terminate_instance(&id, DRAIN)
    });
    eventually("the instance drains", || edge.lab.http_get(&victim, "/readyz").is_ok_and(|(status, _)| status == 503));
    // Every other call, so that the instance's own are in both halves.
    let (during, after): (Vec<_>, Vec<_>) = calls.drain(..).enumerate().partition(|(index, _)| index / 2 % 2 == 0);
    let calls_of = |half: Vec<(usize, _)>| half.into_iter().map(|(_, call)| call).collect();
    party.end("BYE while the instance drains", calls_of(during), either).await;
    let ended = termination.join().expect("the thread ends").expect("terminate");
    assert_eq!(ended, Some(0), "{victim} drains and ends by itself");
    party.end("BYE after the instance has ended", calls_of(after), either).await;
    // New calls find their way, too.
    party.end("BYE of new calls", party.place().await, either).await;
    drop(party);
    edge.destroy();
}

async fn hang_up(test: &str, spec: &str, topology: &str, callers: Callers, end: End) {
    let Some(edge) = Edge::deploy(test, spec, topology) else { return };
    let party = Party::join(&edge, callers);
    party.end("BYE", party.place().await, |_| end).await;
    let counts = edge.counts_with("calls_answered", CALLS as u64);
    assert_eq!(sum(&counts, "requests_in_dialog"), CALLS as u64, "BYEs: {counts:#?}");
    drop(party);
    edge.destroy();
}

/// Calls through several instances, ended from both sides; returns how many instances carried some.
async fn spread(test: &str, spec: &str, callers: Callers) -> Option<usize> {
    let edge = Edge::deploy(test, spec, LOAD_BALANCED)?;
    let party = Party::join(&edge, callers);
    party.end("BYE", party.place().await, either).await;
    let carriers = carriers_of_calls(&edge, CALLS).len();
    drop(party);
    edge.destroy();
    Some(carriers)
}

async fn killed_instance(test: &str, end: End) {
    let spec = format!("{SIX_LINES}scaling: {{ min: 3 }}\n");
    let Some(edge) = Edge::deploy(test, &spec, LOAD_BALANCED) else { return };
    let party = Party::join(&edge, Callers::Addresses);
    let calls = party.place().await;
    assert!(carriers_of_calls(&edge, CALLS).len() > 1, "the calls are spread");
    let victim = busiest(&edge);
    edge.lab.kill_instance(&victim).expect("kill");
    party.end("BYE after the kill", calls, |_| end).await;
    let counts = edge.counts_with("requests_in_dialog", CALLS as u64);
    assert!(!counts.contains_key(&victim), "the others sent every BYE on: {counts:#?}");
    drop(party);
    edge.destroy();
}

/// The ends in turn.
fn either(index: usize) -> End {
    if index.is_multiple_of(2) { End::Caller } else { End::Callee }
}

/// Answered calls of each instance, once there are `sum` of them.
fn calls_by_instance(edge: &Edge, sum: usize) -> BTreeMap<InstanceId, u64> {
    let counts = edge.counts_with("calls_answered", sum as u64);
    counts.into_iter().map(|(id, counts): (_, Counts)| (id, counts["calls_answered"])).collect()
}

/// The instances that carried some of the calls.
fn carriers_of_calls(edge: &Edge, sum: usize) -> Vec<InstanceId> {
    let calls = calls_by_instance(edge, sum);
    println!("calls: {calls:?}");
    calls.into_iter().filter(|(_, calls)| *calls > 0).map(|(id, _)| id).collect()
}

/// The instance that carried most of the calls.
fn busiest(edge: &Edge) -> InstanceId {
    let calls = calls_by_instance(edge, CALLS);
    calls.into_iter().max_by_key(|(_, calls)| *calls).expect("an instance").0
}

/// Where the callers are. The callees are always at the destination's addresses.
#[derive(Clone, Copy)]
enum Callers {
    /// As many of the source's addresses as there are, none of them a callee's.
    Addresses,
    /// One address and a port for each call.
    Ports,
    /// The callee's socket.
    Callee,
}

/// The user agents of one test.
struct Party {
    trace: Trace,
    ingress: SocketAddr,
    number: String,
    /// One for each call.
    callers: Vec<Agent>,
    callees: Arc<[Agent]>,
}

impl Party {
    fn join(edge: &Edge, callers: Callers) -> Self {
        let trace = Trace::new();
        let route = edge.route();
        let agent = |namespace: &str, address: SocketAddr| {
            let socket = edge.lab.udp_socket(namespace, address).expect("a socket in the carrier's network");
            Agent::new(socket, Settings::default(), &trace).expect("a user agent")
        };
        let callees: Arc<[Agent]> = route.callee.iter().map(|place| agent(&place.namespace, place.address)).collect();
        let called = |address: &IpAddr| route.callee.iter().any(|place| place.address.ip() == *address);
        let source = edge.plan.proxy.trunks.iter().find(|trunk| trunk.name == route.from).expect("the source trunk");
        let addresses: Vec<IpAddr> =
            source.from.iter().flat_map(|range| range.hosts()).filter(|address| !called(address)).collect();
        let ports = || (0..).map(|index| 5060 + 2 * index);
        let places: Vec<SocketAddr> = match callers {
            Callers::Addresses => {
                let places = ports().flat_map(|port| addresses.iter().map(move |ip| SocketAddr::new(*ip, port)));
                places.take(CALLS).collect()
            }
            Callers::Ports => ports().take(CALLS).map(|port| SocketAddr::new(addresses[0], port)).collect(),
            Callers::Callee => Vec::new(),
        };
        let callers = match callers {
            Callers::Callee => vec![callees[0].clone(); CALLS],
            Callers::Addresses | Callers::Ports => {
                places.iter().map(|place| agent(&route.caller.namespace, *place)).collect()
            }
        };
        Self { trace, ingress: edge.ingress(), number: route.number.clone(), callers, callees }
    }

    /// Calls that are up, each with its Call-ID.
    async fn place(&self) -> Vec<(String, Call)> {
        let ringing = self.ring().await;
        let answered = ringing.into_iter().map(|(call_id, call)| (call_id, call.answer()));
        self.all("200 and ACK", answered).await
    }

    /// Calls that ring, each with its Call-ID.
    async fn ring(&self) -> Vec<(String, RingingCall)> {
        let calls = self.callers.iter().map(|caller| {
            let (caller, callees) = (caller.clone(), Arc::clone(&self.callees));
            let invite = Invite::new(self.ingress, &self.number);
            (invite.call_id.clone(), async move { RingingCall::place(&caller, &callees, &invite).await })
        });
        self.all("INVITE and 180", calls).await
    }

    /// Hangs up all calls at once, each from the end that `end` says.
    async fn end(&self, what: &str, calls: Vec<(String, Call)>, end: impl Fn(usize) -> End) {
        let calls = calls.into_iter().enumerate().map(|(index, (call_id, call))| (call_id, call.hang_up(end(index))));
        self.all(what, calls).await;
    }

    /// Does the same in many calls at once, which has to succeed in all of them.
    async fn all<T: Send + 'static>(
        &self,
        what: &str,
        calls: impl Iterator<Item = (String, impl Future<Output = Result<T, AgentError>> + Send + 'static)>,
    ) -> Vec<(String, T)> {
        let tasks: Vec<_> = calls.map(|(call_id, work)| (call_id, tokio::spawn(work))).collect();
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (call_id, task) in tasks {
            match task.await.expect("the task ends") {
                Ok(value) => done.push((call_id, value)),
                Err(error) => failed.push((call_id, error)),
            }
        }
        if let Some((call_id, error)) = failed.first() {
            let ladder: Vec<String> = self
                .trace
                .of(call_id)
                .iter()
                .map(|message| format!("{:?} {} > {}: {}", message.at, message.from, message.to, message.start_line))
                .collect();
            let of = done.len() + failed.len();
            panic!("{what}: {} of {of}; the first that failed: {error}\n{}", done.len(), ladder.join("\n"));
        }
        done
    }
}
