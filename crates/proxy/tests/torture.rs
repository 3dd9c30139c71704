//! The torture messages of RFC 4475 and RFC 5118 through the running proxy: forwarded, answered or dropped as a proxy has to; what is
//! forwarded is unchanged but for what a proxy must change; after each of them an ordinary call passes.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;
#[path = "torture/rows.rs"]
mod rows;
#[path = "torture/wire.rs"]
mod wire;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use process::sip::{Agent, Message};
use process::{Process, address, config};
use rows::{Form, Outcome, RFC_4475, RFC_5118, Row};
use sipedge_proxy::config::{Config, Listen};
use tempfile::TempDir;
use wire::{Parts, Places, Sample, Scope, compare, text};

/// Longest wait for a message that has to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// T1 of the edge: no retransmission of its own comes while a message is on its way, so every second copy is a fault.
const T1_MS: u32 = 30_000;
/// Port of the user agents on their own addresses: where responses go when Via names no port.
const SIP_PORT: u16 = 5060;

#[test]
fn rfc_4475() {
    let (caller, callee) = (Agent::bind(address(120), SIP_PORT), Agent::bind(address(121), SIP_PORT));
    let config = config(address(122), caller.address.ip(), callee.address);
    Edge::start(config, caller, callee).try_all(RFC_4475);
}

#[test]
fn rfc_5118_over_ipv4() {
    let (caller, callee) = (Agent::bind(address(123), SIP_PORT), Agent::bind(address(124), SIP_PORT));
    let config = config(address(125), caller.address.ip(), callee.address);
    Edge::start(config, caller, callee).try_all(RFC_5118);
}

#[test]
fn rfc_5118_over_ipv6() {
    let loopback: IpAddr = Ipv6Addr::LOCALHOST.into();
    if let Err(error) = UdpSocket::bind((loopback, 0)) {
        println!("skipped: {} messages over IPv6: no IPv6 loopback ({error})", RFC_5118.len());
        return;
    }
    let (caller, callee) = (Agent::bind(loopback, 0), Agent::bind(loopback, 0));
    let mut config = config(loopback, loopback, callee.address);
    // All of them share the one loopback address, so their ports have to differ.
    let [ingress, egress] = [0, 0].map(|port| UdpSocket::bind((loopback, port)).unwrap());
    let admin = TcpListener::bind((loopback, 0)).unwrap();
    let port = |address: std::io::Result<SocketAddr>| address.unwrap().port();
    let (ingress_port, egress_port) = (port(ingress.local_addr()), port(egress.local_addr()));
    config.listen = Listen { ingress_port, egress_port, ..config.listen };
    config.admin.port = port(admin.local_addr());
    drop((ingress, egress, admin));
    Edge::start(config, caller, callee).try_all(RFC_5118);
}

/// RFC 5118 §4.5 again, where the edge itself acts on it: its own Via, as a peer gives it back.
#[test]
fn received_in_the_edges_own_via_is_read_in_either_form() {
    let (caller, callee) = (Agent::bind(address(126), SIP_PORT), Agent::bind(address(127), SIP_PORT));
    let config = config(address(128), caller.address.ip(), callee.address);
    let edge = Edge::start(config, caller, callee);
    for received in ["2001:db8::9:255", "[2001:db8::9:255]", "192.0.2.1"] {
        let (invite, from) = edge.invite().unwrap();
        let end = Parts::of(&invite).one("via").unwrap().value.end;
        let stamped = [&invite[..end], format!(";received={received}").as_bytes(), &invite[end..]].concat();
        let ok = wire::response(&stamped, b"SIP/2.0 200 OK", b"Content-Length: 0\r\n\r\n");
        edge.send(&edge.callee, &ok, from);
        let (passed, _) = take(&edge.caller, "the response").unwrap();
        compare(received, &passed, &wire::without_top_via(&ok)).unwrap();
    }
}

/// Every section that has a message is in the table as the RFC has it, and every file is in the table.
#[test]
fn no_message_is_missing() {
    let as_it_is = |rows: &[Row]| -> Vec<&str> {
        rows.iter().filter(|row| matches!(row.form, Form::AsItIs)).map(|row| row.section).collect()
    };
    let numbered = |chapter: &str, last: u32| (1..=last).map(|n| format!("{chapter}.{n}")).collect::<Vec<_>>();
    let sections =
        [numbered("3.1.1", 13), numbered("3.1.2", 19), numbered("3.2", 1), numbered("3.3", 15), numbered("3.4", 1)];
    assert_eq!(as_it_is(RFC_4475), sections.concat());
    // §4.5 and §4.10 have two messages each.
    let mut sections = numbered("4", 10);
    sections.insert(4, "4.5".to_owned());
    sections.push("4.10".to_owned());
    assert_eq!(as_it_is(RFC_5118), sections);

    let named: BTreeSet<String> = [RFC_4475, RFC_5118].concat().iter().map(|row| format!("{}.sip", row.file)).collect();
    let files = std::fs::read_dir(wire::folder()).unwrap();
    let files: BTreeSet<String> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sip"))
        .collect();
    assert_eq!(named, files);
}

/// A running proxy between a calling and a called user agent.
struct Edge {
    process: Process,
    _folder: TempDir,
    ingress: SocketAddr,
    egress: SocketAddr,
    caller: Agent,
    callee: Agent,
    places: Places,
    calls: Cell<u32>,
    fences: Cell<u32>,
}

/// What came, and from where.
type Datagram = (Vec<u8>, SocketAddr);

impl Edge {
    fn start(mut config: Config, caller: Agent, callee: Agent) -> Self {
        // One shard deals with everything in order: when an ordinary call has passed, whatever came before it has been dealt with.
        config.listen.shards = 1;
        (config.timers.t1_ms, config.timers.t2_ms, config.timers.t4_ms) = (T1_MS, T1_MS, T1_MS);
        (config.timers.response_ms, config.timers.invite_ms) = (10 * T1_MS, 10 * T1_MS);
        let ip = config.listen.address.unwrap();
        let ingress = SocketAddr::new(ip, config.listen.ingress_port);
        let egress = SocketAddr::new(ip, config.listen.egress_port);
        let (process, folder) = Process::run(&config);
        process.wait_for_log("ready_ms");
        let places =
            Places { sent_by: ingress.to_string(), source: caller.address, callee: callee.address.to_string() };
        Self {
            process,
            _folder: folder,
            ingress,
            egress,
            caller,
            callee,
            places,
            calls: Cell::new(0),
            fences: Cell::new(0),
        }
    }

    /// Tries every row, and fails with all that failed.
    fn try_all(mut self, rows: &[Row]) {
        let mut failures = Vec::new();
        let (mut forwarded, mut answered, mut dropped) = (0, 0, 0);
        for row in rows {
            let title = format!("§{} {} ({:?})", row.section, row.file, row.form);
            match row.outcome {
                Outcome::Forwarded => forwarded += 1,
                Outcome::Answered(_) => answered += 1,
                _ => dropped += 1,
            }
            if let Err(error) = self.try_and_call(row) {
                self.drain();
                failures.push(format!("{title}: expected {:?}, since {}\n  {error}", row.outcome, row.why));
            }
            assert!(self.process.is_running(), "{title} has ended the process:\n{}", self.process.log());
        }
        println!("{} messages: {forwarded} forwarded, {answered} answered, {dropped} dropped or refused", rows.len());
        assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
    }

    /// Tries a row, and then an ordinary call.
    fn try_and_call(&self, row: &Row) -> Result<(), String> {
        self.try_row(row)?;
        self.ordinary_call().map_err(|error| format!("after it, an ordinary call does not pass: {error}"))
    }

    fn try_row(&self, row: &Row) -> Result<(), String> {
        let sample = Sample::read(row.file, self.caller.address.port());
        let sample = match row.form {
            Form::AsItIs => sample,
            Form::Invite => sample.into_invite(),
            Form::InviteWith(changes) => {
                if sample.bytes.starts_with(b"INVITE ") { sample } else { sample.into_invite() }.change(changes)
            }
            Form::InDialog => return self.send_in_dialog(&sample, row.outcome),
            Form::InCall(changes) => return self.respond_in_call(&sample, changes, row.outcome),
        };
        self.send(&self.caller, &sample.bytes, self.ingress);
        match row.outcome {
            Outcome::Forwarded => self.is_forwarded(&sample),
            Outcome::Answered(code) => self.is_answered(&sample, code),
            Outcome::Refused => self.is_refused(&sample),
            // A response that is nobody's gets no further by the other socket.
            Outcome::Dropped if sample.bytes.starts_with(b"SIP/2.0") => {
                self.send(&self.callee, &sample.bytes, self.egress);
                Ok(())
            }
            // The ordinary call that follows finds whatever it has caused.
            Outcome::Dropped => Ok(()),
        }
    }

    /// It arrives as it was but for the edge's changes; sent again it is absorbed; the response finds its way back, changed by nothing
    /// but the edge's Via.
    fn is_forwarded(&self, sample: &Sample) -> Result<(), String> {
        // RFC 4320 §4.1: no 100 to other requests, not before Timer E is at T2.
        let trying = match sample.bytes.starts_with(b"INVITE ") {
            true => Some(take(&self.caller, "100")?.0),
            false => None,
        };
        if let Some(trying) = &trying {
            self.check_answer(trying, &sample.bytes, 100)?;
        }
        let (arrived, from) = take(&self.callee, "the request")?;
        if from != self.egress {
            return Err(format!("it left from {from}"));
        }
        let undone = self.places.undo(&arrived, &sample.bytes, Scope::New)?;
        compare("what is forwarded", &undone, &sample.as_forwarded())?;

        self.send(&self.caller, &sample.bytes, self.ingress);
        match (trying, self.answer_before_fence()?) {
            (Some(trying), Some(again)) => compare("the second 100", &again, &trying)?,
            (Some(_), None) => return Err("no 100 to the retransmission".to_owned()),
            (None, Some(again)) => return Err(format!("the retransmission is answered: {}", again.escape_ascii())),
            (None, None) => {}
        }
        is_empty(&self.callee, "the retransmission is not absorbed")?;

        let ok = wire::response(&arrived, b"SIP/2.0 200 OK", b"Content-Length: 0\r\n\r\n");
        self.send(&self.callee, &ok, from);
        let (passed, from) = take(&self.caller, "the response")?;
        if from != self.ingress {
            return Err(format!("the response came from {from}"));
        }
        compare("the response", &passed, &wire::without_top_via(&ok))
    }

    /// It is answered, and the same again when it comes again; nobody else sees it.
    fn is_answered(&self, sample: &Sample, code: u16) -> Result<(), String> {
        let (answer, from) = take(&self.caller, "an answer")?;
        if from != self.ingress {
            return Err(format!("the answer came from {from}"));
        }
        self.check_answer(&answer, &sample.bytes, code)?;
        self.send(&self.caller, &sample.bytes, self.ingress);
        let (again, _) = take(&self.caller, "an answer to the retransmission")?;
        compare("the second answer", &again, &answer)
    }

    /// What every answer carries over from its request (RFC 3261 §8.2.6.2), and what some codes have to say.
    fn check_answer(&self, answer: &[u8], sent: &[u8], code: u16) -> Result<(), String> {
        let (message, request) = (Parts::of(answer), Parts::of(sent));
        let status = text(&answer[..message.start_end]);
        if !status.starts_with(&format!("SIP/2.0 {code} ")) {
            return Err(format!("the answer is {status:?}"));
        }
        let (answered, asked): (Vec<_>, Vec<_>) = (message.all("via").collect(), request.all("via").collect());
        if answered.len() != asked.len() {
            return Err(format!("the answer has {} Vias, the request {}", answered.len(), asked.len()));
        }
        for (index, (via, before)) in answered.iter().zip(&asked).enumerate() {
            let (line, before) = (&answer[via.line.clone()], &sent[before.line.clone()]);
            let line = if index == 0 { self.places.without_stamp(line, before)? } else { line.to_vec() };
            compare("a Via of the answer", &line, before)?;
        }
        for name in ["from", "to", "call-id", "cseq"] {
            let (Some(header), Some(before)) = (message.one(name), request.one(name)) else { continue };
            let (line, before) = (&answer[header.line.clone()], &sent[before.line.clone()]);
            let before = &before[..before.len() - 2];
            let added = line.strip_prefix(before).ok_or(format!("{name} of the answer is {:?}", text(line)))?;
            // RFC 3261 §8.2.6.2: a tag, unless there is one already, or the answer is 100.
            let (is_tag, is_nothing) = (name == "to" && added.starts_with(b";tag="), added == b"\r\n");
            let wants_tag = name == "to" && code != 100 && !text(before).contains("tag");
            // Behind a quote that is left open a tag is as good as none.
            let is_open = before.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            let is_right = if is_open { is_tag || is_nothing } else { if wants_tag { is_tag } else { is_nothing } };
            if !is_right {
                return Err(format!("{name} of the answer has {:?} added", text(added)));
            }
        }
        let value = |parts: &Parts, bytes: &[u8], name: &str| {
            parts.one(name).map(|header| text(&bytes[header.value.clone()])).unwrap_or_default()
        };
        let is_options = sent.starts_with(b"OPTIONS ");
        if (code == 405 || (code == 200 && is_options)) && value(&message, answer, "allow").is_empty() {
            return Err("the answer has no Allow".to_owned());
        }
        // A proxy lists what Proxy-Require asks for (RFC 3261 §16.3 step 5), the one that is asked what Require asks for (§8.2.2.3).
        let unsupported = value(&message, answer, "unsupported");
        let is_listed = |name: &str| unsupported.contains(&value(&request, sent, name));
        if code == 420 && !is_listed("proxy-require") && !(is_options && is_listed("require")) {
            return Err(format!("Unsupported is {unsupported:?}"));
        }
        Ok(())
    }

    /// It is answered 400 or not at all.
    fn is_refused(&self, sample: &Sample) -> Result<(), String> {
        match self.answer_before_fence()? {
            Some(answer) => self.check_answer(&answer, &sample.bytes, 400),
            None => Ok(()),
        }
    }

    /// Sends OPTIONS to the edge and waits for its answer: what came in before has been dealt with then. An answer that comes earlier
    /// is returned.
    fn answer_before_fence(&self) -> Result<Option<Vec<u8>>, String> {
        self.fences.set(self.fences.get() + 1);
        let id = format!("fence-{}", self.fences.get());
        let options = self.caller.request("OPTIONS", &format!("sip:{}", self.ingress), &id);
        self.send(&self.caller, options.as_bytes(), self.ingress);
        let is_fence = |answer: &[u8]| text(answer).contains(&format!("Call-ID: {id}\r\n"));
        let (first, _) = take(&self.caller, "the answer to OPTIONS")?;
        if is_fence(&first) {
            return Ok(None);
        }
        let (second, _) = take(&self.caller, "the answer to OPTIONS")?;
        if is_fence(&second) { Ok(Some(first)) } else { Err(format!("a second answer: {}", second.escape_ascii())) }
    }

    /// The message as the called side's response to an ordinary INVITE; then that call is answered, if it is not by now.
    fn respond_in_call(&self, sample: &Sample, changes: &[(&str, &str)], expected: Outcome) -> Result<(), String> {
        let (invite, from) = self.invite()?;
        let message = Parts::of(&sample.bytes);
        let mut rest = Vec::new();
        for header in &message.headers {
            if !["via", "record-route", "from", "to", "call-id", "cseq"].contains(&header.name.as_str()) {
                rest.extend_from_slice(&sample.bytes[header.line.clone()]);
            }
        }
        let body = message.headers.last().unwrap().line.end;
        rest.extend_from_slice(&sample.bytes[body..]);
        let composed = wire::response(&invite, &sample.bytes[..message.start_end], &rest);
        let caller = self.caller.address.to_string();
        let changes: Vec<(String, &str)> = changes.iter().map(|(a, b)| (a.replace("{caller}", &caller), *b)).collect();
        let changes: Vec<(&str, &str)> = changes.iter().map(|(a, b)| (a.as_str(), *b)).collect();
        let composed = Sample { framed: composed.len(), bytes: composed }.change(&changes).bytes;
        self.send(&self.callee, &composed, from);
        if expected == Outcome::Forwarded {
            let (passed, _) = take(&self.caller, "the response")?;
            compare("the response", &passed, &wire::without_top_via(&composed))?;
            if composed.starts_with(b"SIP/2.0 4") {
                let (ack, _) = take(&self.callee, "the edge's ACK")?;
                return if ack.starts_with(b"ACK ") { Ok(()) } else { Err(format!("not an ACK: {}", text(&ack))) };
            }
            if composed.starts_with(b"SIP/2.0 2") {
                return Ok(());
            }
        }
        let ok = wire::response(&invite, b"SIP/2.0 200 OK", b"Content-Length: 0\r\n\r\n");
        self.send(&self.callee, &ok, from);
        let (passed, _) = take(&self.caller, "the 200 that ends the set-up")?;
        compare("the 200 that ends the set-up", &passed, &wire::without_top_via(&ok))
    }

    /// The message within a call: forwarded once however often it comes, its response passes back and is repeated; or answered.
    fn send_in_dialog(&self, sample: &Sample, expected: Outcome) -> Result<(), String> {
        let ok = self.establish()?;
        let uri = format!("sip:callee@{}", self.callee.address);
        let headers = format!("{}{}", routes(&ok), dialog(&ok));
        let sample = wire::in_dialog(sample, &uri, &headers);
        self.send(&self.caller, &sample.bytes, self.ingress);
        match expected {
            Outcome::Forwarded => {
                let (arrived, from) = take(&self.callee, "the request")?;
                let undone = self.places.undo(&arrived, &sample.bytes, Scope::InDialog)?;
                compare("what is forwarded", &undone, &sample.as_forwarded())?;
                self.send(&self.caller, &sample.bytes, self.ingress);
                if let Some(answer) = self.answer_before_fence()? {
                    return Err(format!("the retransmission is answered: {}", answer.escape_ascii()));
                }
                is_empty(&self.callee, "the retransmission is not absorbed")?;
                let response = wire::response(&arrived, b"SIP/2.0 200 OK", b"Content-Length: 0\r\n\r\n");
                self.send(&self.callee, &response, from);
                let (passed, _) = take(&self.caller, "the response")?;
                compare("the response", &passed, &wire::without_top_via(&response))?;
                self.send(&self.caller, &sample.bytes, self.ingress);
                let (again, _) = take(&self.caller, "the repeated response")?;
                compare("the repeated response", &again, &passed)?;
            }
            Outcome::Answered(code) => self.is_answered(&sample, code)?,
            other => return Err(format!("{other:?} is not for a request in a dialog")),
        }
        self.hang_up(&ok)
    }

    /// A call that nothing is odd about: INVITE, 100, 200, ACK, BYE, 200, and not a message more.
    fn ordinary_call(&self) -> Result<(), String> {
        let ok = self.establish()?;
        self.hang_up(&ok)?;
        is_empty(&self.caller, "the caller gets more than its call")?;
        is_empty(&self.callee, "the callee gets more than its call")
    }

    /// INVITE, 100, 200, ACK: the 200 as the caller gets it.
    fn establish(&self) -> Result<Message, String> {
        let (invite, from) = self.invite()?;
        self.callee.respond(&Message { from, text: text(&invite) }, "200 OK");
        let ok = self.take_of_call(&self.caller, "SIP/2.0 200 ")?;
        self.caller.acknowledge(&ok, self.ingress);
        self.take_of_call(&self.callee, "ACK ")?;
        Ok(ok)
    }

    /// BYE, 200.
    fn hang_up(&self, ok: &Message) -> Result<(), String> {
        let (caller, callee, id) = (self.caller.address, self.callee.address, ok.header("Call-ID"));
        let bye = format!(
            "BYE sip:callee@{callee} SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bK{id}bye;rport\r\n{}\
             Max-Forwards: 70\r\n{}CSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
            routes(ok),
            dialog(ok),
        );
        self.send(&self.caller, bye.as_bytes(), self.ingress);
        let bye = self.take_of_call(&self.callee, "BYE ")?;
        self.callee.respond(&bye, "200 OK");
        self.take_of_call(&self.caller, "SIP/2.0 200 ").map(drop)
    }

    /// An ordinary INVITE, as it arrives at the called side.
    fn invite(&self) -> Result<Datagram, String> {
        self.calls.set(self.calls.get() + 1);
        let id = format!("ordinary-{}", self.calls.get());
        let invite = self.caller.request("INVITE", &format!("sip:bob@{}", self.ingress), &id);
        self.send(&self.caller, invite.as_bytes(), self.ingress);
        self.take_of_call(&self.caller, "SIP/2.0 100 ")?;
        let invite = self.take_of_call(&self.callee, "INVITE ")?;
        Ok((invite.text.into_bytes(), invite.from))
    }

    /// The next message, which has to be this one of the ordinary call.
    fn take_of_call(&self, agent: &Agent, start: &str) -> Result<Message, String> {
        let (bytes, from) = take(agent, &format!("{start:?} of an ordinary call"))?;
        let (text, id) = (text(&bytes), format!("Call-ID: ordinary-{}\r\n", self.calls.get()));
        if text.starts_with(start) && text.contains(&id) {
            Ok(Message { from, text })
        } else {
            Err(format!("{} got, instead of {start:?}:\n{}", agent.address, bytes.escape_ascii()))
        }
    }

    fn send(&self, from: &Agent, bytes: &[u8], to: SocketAddr) {
        assert_eq!(from.socket.send_to(bytes, to).unwrap(), bytes.len());
    }

    /// Throws away what a failed row has left, until an ordinary call passes.
    fn drain(&self) {
        for _ in 0..3 {
            for agent in [&self.caller, &self.callee] {
                while agent.next(Duration::from_millis(50)).is_some() {}
            }
            if self.ordinary_call().is_ok() {
                return;
            }
        }
        panic!("no ordinary call passes any more:\n{}", self.process.log());
    }
}

/// Route headers for the caller's requests in the call that `ok` has opened.
fn routes(ok: &Message) -> String {
    ok.headers("Record-Route").iter().rev().map(|route| format!("Route: {route}\r\n")).collect()
}

/// From, To and Call-ID of the caller's requests in the call that `ok` has opened.
fn dialog(ok: &Message) -> String {
    ["From", "To", "Call-ID"].map(|name| format!("{name}: {}\r\n", ok.header(name))).concat()
}

/// The next datagram.
fn take(agent: &Agent, what: &str) -> Result<Datagram, String> {
    agent.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 65_536];
    let (length, from) = agent
        .socket
        .recv_from(&mut buffer)
        .map_err(|_| format!("{} got no {what} within {PATIENCE:?}", agent.address))?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// Nothing has arrived that nobody has asked for.
fn is_empty(agent: &Agent, fault: &str) -> Result<(), String> {
    agent.socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    let got = agent.socket.recv_from(&mut buffer);
    agent.socket.set_nonblocking(false).unwrap();
    match got {
        Ok((length, _)) => Err(format!("{fault}: {}", buffer[..length].escape_ascii())),
        Err(_) => Ok(()),
    }
}
