//! One deployed edge with user agents on plain sockets, which send what a strict user agent would not.

#![allow(dead_code, reason = "each test file uses its part of this module")]

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sipedge::plan::{Endpoint, Plan};
use sipedge::spec::Transport;
use sipedge::target::lab::{InstanceId, Lab, STRANGER_NAMESPACE};
use sipedge::verify::STRANGER_ADDRESS;

use crate::DEADLINE;
use crate::sip::{Agent, Message};
use crate::support::Project;

/// How long nothing has to come until silence is believed. The lab's paths take less than a millisecond.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

/// CSeq numbers of requests that are refused: above those of calls, so that each is new.
static NUMBERS: AtomicU32 = AtomicU32::new(100);

/// One destination address, so that one user agent sees all that is let through. `LIMITS` and `REFUSE` are filled in.
const SPEC: &str = "
version: 1
name: twilio-bridge
aws: { region: us-east-1, profile: default }
trunks:
  source: { from: [198.51.100.0/28]LIMITS }
  destination: { targets: [\"sip:192.0.2.18:5060\"] }
routes:
  - { from: source, to: destination }
refuse: REFUSE
timers: { response: 1s, invite: 5s }
";

/// One deployed instance, a user agent at each carrier, and a stranger.
pub(crate) struct Stage {
    pub(crate) project: Project,
    lab: Lab,
    instance: InstanceId,
    pub(crate) edge: SocketAddr,
    number: String,
    pub(crate) caller: Agent,
    pub(crate) callee: Agent,
    pub(crate) stranger: Agent,
}

impl Stage {
    pub(crate) fn start(test: &str, limits: &str, refuse: &str) -> Option<Self> {
        let project = Project::with_lab(test)?;
        project.write_spec(&SPEC.replace("LIMITS", limits).replace("REFUSE", refuse));
        project.deploy("single-ec2");
        let state = project.state("single-ec2");
        let plan: Plan = serde_json::from_slice(&fs::read(state.join("plan.json")).unwrap()).unwrap();
        let lab = Lab::attach(&state.join("lab")).unwrap().expect("the lab runs");
        let status = lab.status().unwrap();
        let call = &plan.verify.calls[0];
        let agent = |endpoint: &Endpoint| {
            let socket = lab.udp_socket(&endpoint.namespace, endpoint.address).unwrap();
            Agent { socket, address: endpoint.address }
        };
        let stranger =
            Endpoint { namespace: STRANGER_NAMESPACE.to_owned(), address: STRANGER_ADDRESS, transport: Transport::Udp };
        let mut stage = Self {
            instance: status.instances[0].id.clone(),
            edge: (status.ingress_addresses[0], plan.proxy.listen.ingress_port).into(),
            number: call.number.clone(),
            caller: agent(&call.caller),
            callee: agent(&call.callee[0]),
            stranger: agent(&stranger),
            project,
            lab,
        };
        // One that the smoke call has not been through: its counters are at nought.
        stage.replace_instance();
        Some(stage)
    }

    pub(crate) fn end(self) {
        self.project.run(&["destroy"]).expect(0);
        self.project.assert_no_trace();
    }

    /// A request to the edge outside of a dialog.
    pub(crate) fn request(&self, agent: &Agent, method: &str, call_id: &str) -> String {
        agent.request(method, &format!("sip:{}@{}", self.number, self.edge), call_id)
    }

    /// Sends a request and returns its final response.
    pub(crate) fn ask(&self, agent: &Agent, request: &str) -> Message {
        let sent = Message { from: agent.address, text: request.to_owned() };
        let branch = |message: &Message| message.header("Via").split("branch=").nth(1).map(first_word);
        agent.send(request, self.edge);
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = agent.next(left).unwrap_or_else(|| panic!("no final response to {}", sent.first_line()));
            let is_final = message.text.starts_with("SIP/2.0 ") && !message.text.starts_with("SIP/2.0 1");
            if is_final && branch(&message) == branch(&sent) && message.header("CSeq") == sent.header("CSeq") {
                return message;
            }
        }
    }

    /// A call that is up.
    pub(crate) fn set_up(&self, call_id: &str) -> Talk {
        self.caller.send(&self.request(&self.caller, "INVITE", call_id), self.edge);
        let invite = self.callee.expect("INVITE");
        assert_eq!(invite.header("Call-ID"), call_id, "another call went through: {}", invite.text);
        self.callee.respond(&invite, "200 OK");
        let ok = self.caller.expect("SIP/2.0 200");
        assert_eq!((ok.header("Call-ID"), ok.header("CSeq")), (call_id, "1 INVITE"));
        self.caller.acknowledge(&ok, self.edge);
        self.callee.expect("ACK");
        let routes = ok.headers("Record-Route").iter().rev().map(ToString::to_string).collect();
        Talk {
            call_id: call_id.to_owned(),
            from: ok.header("From").to_owned(),
            to: ok.header("To").to_owned(),
            routes,
            number: 1,
        }
    }

    /// Asserts that a call passes, and that nothing else has come to the destination.
    pub(crate) fn nothing_went_through(&self) {
        // What was let through by mistake is there, or is as quick as a call.
        if let Some(message) = self.callee.next(SILENCE) {
            panic!("it went through: {}", message.text);
        }
        self.set_up(&format!("good-{}", self.count("calls_started"))).hang_up(self);
        if let Some(message) = self.callee.next(Duration::from_millis(20)) {
            panic!("it went through: {}", message.text);
        }
    }

    /// One of the engine's counters.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let (status, page) = self.lab.http_get(&self.instance, "/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        let name = format!("sipedge_{name}_total ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{page}")).parse().unwrap()
    }

    /// Waits until a counter is exactly this; the page is at most a second old.
    #[track_caller]
    pub(crate) fn wait_for_count(&self, name: &str, wanted: u64) {
        let until = Instant::now() + DEADLINE;
        loop {
            let count = self.count(name);
            if count == wanted {
                return;
            }
            assert!(count < wanted && Instant::now() < until, "{name} is {count}, not {wanted}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the instance and boots another one in its place.
    pub(crate) fn replace_instance(&mut self) {
        self.lab.kill_instance(&self.instance).unwrap();
        self.instance = self.lab.add_instance().unwrap();
        self.lab.wait_healthy(&self.instance, DEADLINE).unwrap();
    }
}

/// A call that is up, as the caller has it.
pub(crate) struct Talk {
    call_id: String,
    from: String,
    to: String,
    pub(crate) routes: Vec<String>,
    number: u32,
}

impl Talk {
    /// A request of the caller with these routes.
    pub(crate) fn request(&self, caller: &Agent, method: &str, number: u32, routes: &[String]) -> String {
        let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
        let (address, Self { call_id, from, to, .. }) = (caller.address, self);
        format!(
            "{method} sip:callee@192.0.2.18:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch=z9hG4bK{call_id}{number}{method}\r\n\
             {routes}Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {number} {method}\r\n\
             Contact: <sip:caller@{address}>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// The token in the call's route.
    pub(crate) fn token(&self) -> &str {
        let user = self.routes[0].split_once("sip:").and_then(|(_, rest)| rest.split_once('@'));
        user.expect("the route has a user part").0
    }

    /// Asserts that requests of this call with these routes are refused, that an ACK gets no answer, and that the callee gets none of them.
    #[track_caller]
    pub(crate) fn is_refused(&self, stage: &Stage, routes: &[String]) {
        for method in ["BYE", "INVITE", "UPDATE", "INFO"] {
            let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
            let answer = stage.ask(&stage.caller, &self.request(&stage.caller, method, number, routes));
            let code = answer.first_line().split(' ').nth(1).unwrap_or_default();
            assert!(matches!(code, "400" | "403" | "404"), "{method} by {routes:?}: {}", answer.text);
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        stage.caller.send(&self.request(&stage.caller, "ACK", number, routes), stage.edge);
        let leaked = stage.callee.next(SILENCE / 4);
        assert!(leaked.is_none(), "it went through by {routes:?}: {leaked:?}");
    }

    /// A re-INVITE, its 200 and its ACK.
    pub(crate) fn reinvite(&mut self, stage: &Stage) {
        self.number += 1;
        stage.caller.send(&self.request(&stage.caller, "INVITE", self.number, &self.routes), stage.edge);
        let arrived = stage.callee.expect("INVITE");
        assert_eq!(arrived.header("Call-ID"), self.call_id);
        stage.callee.respond(&arrived, "200 OK");
        stage.caller.expect("SIP/2.0 200");
        let ack = self.request(&stage.caller, "ACK", self.number, &self.routes);
        stage.caller.send(&ack, stage.edge);
        stage.callee.expect("ACK");
    }

    /// BYE by the call's own route, and its 200.
    pub(crate) fn hang_up(mut self, stage: &Stage) {
        self.number += 1_000;
        stage.caller.send(&self.request(&stage.caller, "BYE", self.number, &self.routes), stage.edge);
        let arrived = stage.callee.expect("BYE");
        assert_eq!(arrived.header("Call-ID"), self.call_id);
        stage.callee.respond(&arrived, "200 OK");
        let ok = stage.caller.expect("SIP/2.0 200");
        assert_eq!(ok.header("CSeq"), format!("{} BYE", self.number));
    }
}

/// A request in a dialog that was never set up.
pub(crate) fn in_dialog(method: &str, from: &Agent, to: &Agent, call_id: &str, tag: &str, routes: &[String]) -> String {
    let talk = Talk {
        call_id: call_id.to_owned(),
        from: format!("<sip:a@{}>;tag={tag}", from.address),
        to: format!("<sip:b@{}>;tag={tag}", to.address),
        routes: Vec::new(),
        number: 1,
    };
    talk.request(from, method, 1, routes)
}

fn first_word(text: &str) -> String {
    text.split(';').next().unwrap_or_default().to_owned()
}

/// Asserts that the agent gets nothing more.
#[track_caller]
pub(crate) fn assert_silent(agent: &Agent) {
    if let Some(message) = agent.next(SILENCE) {
        panic!("{} got an answer: {}", agent.address, message.text);
    }
}
