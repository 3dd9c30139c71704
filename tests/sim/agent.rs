//! A strict user agent: calls and is called, retransmits by the timers of RFC 3261, and refuses what it should not have got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::plan::{MS, Outcome, Plan, Record, SECOND};
use crate::wire::{Msg, address, parameter, sent_by, uri_of};

const T1: u64 = 500 * MS;
const T2: u64 = 4 * SECOND;
const LIFETIME: u64 = 64 * T1;
/// A caller waits this long for an answer, then cancels: longer than the edge's own Timer C.
const PATIENCE: u64 = 60 * SECOND;
/// Port of the Contact after it has moved, and of a carrier's own proxy: all on the agent's address.
const MOVED_PORT: u16 = 5064;
const PROXY_PORT: u16 = 5072;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What an agent sees of the world.
pub struct Context<'a> {
    pub now: u64,
    pub edge: SocketAddr,
    /// Host that initial requests are sent to by the edge.
    pub target_host: &'a str,
    pub plans: &'a [Plan],
    pub records: &'a mut [Record],
    pub out: &'a mut Vec<Datagram>,
}

pub struct Agent {
    pub address: SocketAddr,
    serial: u64,
    clients: BTreeMap<Key, Client>,
    servers: BTreeMap<Key, Server>,
    dialogs: BTreeMap<usize, Dialog>,
    branches: BTreeSet<String>,
    agenda: BTreeMap<(u64, u64), Action>,
}

/// Branch and method.
type Key = (String, String);

struct Client {
    call: usize,
    request: Msg,
    interval: u64,
    until: u64,
    is_calling: bool,
    code: u16,
    ack: Option<Msg>,
    wants_cancel: bool,
    has_cancelled: bool,
}

struct Server {
    call: usize,
    request: Msg,
    reply_from: SocketAddr,
    reply_to: SocketAddr,
    last: Option<Msg>,
    code: u16,
    interval: u64,
    until: u64,
    acked: bool,
}

struct Dialog {
    is_caller: bool,
    local: String,
    remote: String,
    routes: Vec<String>,
    target: String,
    number: u32,
    contact: SocketAddr,
    ack: Option<Msg>,
    is_over: bool,
    is_reinviting: bool,
}

#[derive(Debug, Clone)]
enum Action {
    Call(usize),
    Ring(Key),
    Final(Key),
    Cancel(usize),
    GiveUp(usize),
    Reinvite(usize),
    HangUp(usize),
    Resend(Key),
    Repeat(Key),
}

impl Agent {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            serial: 0,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            branches: BTreeSet::new(),
            agenda: BTreeMap::new(),
        }
    }

    pub fn will_call(&mut self, call: usize, at: u64) {
        self.plan_action(at, Action::Call(call));
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    pub fn handle_timeout(&mut self, context: &mut Context<'_>) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= context.now) {
            match entry.remove() {
                Action::Call(call) => self.call(context, call),
                Action::Ring(key) => self.respond(context, &key, 180, "Ringing"),
                Action::Final(key) => match context.plans[self.servers[&key].call].outcome {
                    Outcome::Refuse(code, _) => self.respond(context, &key, code, "Refused"),
                    _ => self.respond(context, &key, 200, "OK"),
                },
                Action::Cancel(call) => self.cancel(context, call),
                Action::GiveUp(call) => self.give_up(context, call),
                Action::Reinvite(call) => self.reinvite(context, call),
                Action::HangUp(call) => self.hang_up(context, call),
                Action::Resend(key) => self.resend(context, key),
                Action::Repeat(key) => self.repeat(context, key),
            }
        }
    }

    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), String> {
        let msg = Msg::parse(bytes)?;
        let call = msg.call().filter(|call| *call < context.plans.len()).ok_or("a Call-ID that nobody has made")?;
        if msg.is_request() {
            self.request(context, call, from, to, msg)
        } else {
            self.response(context, call, to, &msg)
        }
    }

    // What the agent does on its own.

    fn call(&mut self, context: &mut Context<'_>, call: usize) {
        let plan = &context.plans[call];
        let mut headers = vec![("Via".to_owned(), self.new_via(plan.rport))];
        if plan.odd {
            let hop = "SIP/2.0/UDP 10.9.9.9:5060;branch=z9hG4bKhop";
            headers.push(("Subject".into(), "folded\r\n  twice\r\n\tover".into()));
            headers.push(("v".into(), format!("{hop}1, {hop}2")));
            headers.push(("Via".into(), format!("{hop}3")));
            // A pre-loaded route leads nowhere but to the edge.
            headers.push(("Route".into(), format!("<sip:{};lr>, <sip:198.51.100.99;lr>", context.edge)));
            headers.push(("X-Odd".into(), "\u{ff}\u{fe}\u{80} <;\"".into()));
        }
        let short = |name: &str, compact: &str| if plan.odd { compact.to_owned() } else { name.to_owned() };
        let own = self.address;
        let mut headers_after = vec![
            ("Max-Forwards".to_owned(), "70".to_owned()),
            (short("From", "f"), format!("\"A, B\" <sip:+1444@{own}>;tag=caller{call}")),
            (short("To", "t"), format!("<sip:+1555{call}@{}>", context.edge)),
            (short("Call-ID", "i"), format!("call-{call}-{}", own.ip())),
            ("CSeq".into(), "1 INVITE".into()),
            (short("Contact", "m"), format!("<sip:caller@{own}>")),
            ("X-Twice".into(), "one".into()),
            ("Content-Type".into(), "application/octet-stream".into()),
            ("X-Twice".into(), "two".into()),
            (short("Content-Length", "l"), plan.body.len().to_string()),
        ];
        context.records[call].places.insert(own);
        if plan.caller_proxy {
            let proxy = SocketAddr::new(own.ip(), PROXY_PORT);
            context.records[call].places.insert(proxy);
            headers.push(("Record-Route".into(), format!("<sip:{proxy};lr>")));
        }
        headers.append(&mut headers_after);
        let start = format!("INVITE sip:+1555{call}@{} SIP/2.0", context.edge);
        self.open(context, call, Msg { start, headers, body: plan.body.clone() });
        if let Some(cancel) = plan.cancel {
            self.plan_action(context.now + cancel, Action::Cancel(call));
        }
        self.plan_action(context.now + PATIENCE, Action::GiveUp(call));
    }

    fn cancel(&mut self, context: &mut Context<'_>, call: usize) {
        let is_first =
            |client: &&mut Client| client.call == call && client.request.start.starts_with("INVITE sip:+1555");
        let Some(client) = self.clients.values_mut().find(is_first) else { return };
        client.wants_cancel = true;
        if client.code >= 200 || client.is_calling || client.has_cancelled {
            return;
        }
        client.has_cancelled = true;
        let mut cancel = client.request.clone();
        cancel.start = cancel.start.replacen("INVITE", "CANCEL", 1);
        cancel.body.clear();
        let via = client.request.headers[0].clone();
        let keep = ["Route", "Max-Forwards", "From", "f", "To", "t", "Call-ID", "i"];
        cancel.headers.retain(|(name, _)| keep.contains(&name.as_str()));
        cancel.headers.insert(0, via);
        cancel.headers.push(("CSeq".into(), "1 CANCEL".into()));
        cancel.headers.push(("Content-Length".into(), "0".into()));
        self.open(context, call, cancel);
        self.plan_action(context.now + LIFETIME, Action::GiveUp(call));
    }

    fn give_up(&mut self, context: &mut Context<'_>, call: usize) {
        let is_first =
            |(_, client): &(&Key, &Client)| client.call == call && client.request.start.starts_with("INVITE sip:+1555");
        let Some((key, client)) = self.clients.iter().find(is_first) else { return };
        if client.code >= 200 {
            return;
        }
        if client.has_cancelled {
            context.records[call].caller_timed_out = true;
            let key = key.clone();
            self.clients.remove(&key);
        } else {
            self.cancel(context, call);
        }
    }

    fn reinvite(&mut self, context: &mut Context<'_>, call: usize) {
        let Some(dialog) = self.dialogs.get_mut(&call).filter(|dialog| !dialog.is_over) else { return };
        dialog.is_reinviting = true;
        if context.plans[call].reinvite.is_some_and(|(_, moves)| moves) {
            dialog.contact.set_port(MOVED_PORT);
            context.records[call].places.insert(dialog.contact);
        }
        let request = self.in_dialog(call, "INVITE", None);
        self.open(context, call, request);
    }

    fn hang_up(&mut self, context: &mut Context<'_>, call: usize) {
        let Some(dialog) = self.dialogs.get_mut(&call).filter(|dialog| !dialog.is_over) else { return };
        if dialog.is_reinviting {
            self.plan_action(context.now + 3 * SECOND, Action::HangUp(call));
            return;
        }
        dialog.is_over = true;
        let request = self.in_dialog(call, "BYE", None);
        self.open(context, call, request);
    }

    // Requests and their responses.

    fn request(
        &mut self,
        context: &mut Context<'_>,
        call: usize,
        from: SocketAddr,
        to: SocketAddr,
        msg: Msg,
    ) -> Result<(), String> {
        let via = msg.top_via();
        if sent_by(&via) != context.edge.to_string() || parameter(&via, "rport") != Some("") {
            return Err(format!("the topmost Via is not the edge's: {via}"));
        }
        if msg.list("Route").iter().any(|route| address(route) == Some(context.edge)) {
            return Err("the edge's own Route is still there".to_owned());
        }
        let initial = matches!(msg.method(), "INVITE" | "CANCEL") && msg.tag("To").is_empty();
        let absorbed = msg.method() == "ACK" && self.servers.contains_key(&(msg.branch(), "INVITE".to_owned()));
        if initial || absorbed {
            let is_first = absorbed || msg.uri() == format!("sip:+1555{call}@{}", context.target_host);
            if !is_first {
                return Err(format!("Request-URI {} instead of one at {}", msg.uri(), context.target_host));
            }
        } else {
            let hop = msg.list("Route").first().map_or_else(|| address(msg.uri()), |route| address(route));
            if hop != Some(to) {
                return Err(format!("a request for {hop:?} arrived at {to}"));
            }
        }
        let key = (msg.branch(), msg.method().to_owned());
        if let Some(server) = self.servers.get_mut(&key) {
            // The latest request says where its response goes.
            server.reply_to = from;
            // RFC 6026 §7.1: an INVITE that has been accepted is absorbed; its 2xx is repeated by itself.
            let is_accepted = key.1 == "INVITE" && (200..300).contains(&server.code);
            if let Some(last) = server.last.as_ref().filter(|_| !is_accepted) {
                context.out.push(Datagram { from: server.reply_from, to: server.reply_to, bytes: last.to_bytes() });
            }
            return Ok(());
        }
        match msg.method() {
            "ACK" => {
                self.acknowledged(context, call, &msg);
                return Ok(());
            }
            "INVITE" if initial => {
                let record_routes = msg.list("Record-Route");
                let top = record_routes.first().and_then(|route| address(route));
                if top != Some(context.edge) {
                    return Err(format!("the first Record-Route is not the edge's: {record_routes:?}"));
                }
                if msg.body != context.plans[call].body {
                    return Err("the body has changed".to_owned());
                }
            }
            _ => {}
        }
        let method = key.1.clone();
        let server = Server {
            call,
            request: msg,
            reply_from: to,
            reply_to: from,
            last: None,
            code: 0,
            interval: T1,
            until: context.now + LIFETIME,
            acked: false,
        };
        self.servers.insert(key.clone(), server);
        match method.as_str() {
            "INVITE" if initial => self.invited(context, call, &key),
            "INVITE" => {
                let server = &self.servers[&key];
                let contact = server.request.list("Contact").first().map(|contact| uri_of(contact).to_owned());
                match self.dialogs.get_mut(&call) {
                    Some(dialog) if dialog.is_reinviting => self.respond(context, &key, 491, "Request Pending"),
                    Some(dialog) if !dialog.is_over => {
                        dialog.target = contact.ok_or("a re-INVITE without a Contact")?;
                        self.respond(context, &key, 200, "OK");
                    }
                    _ => self.respond(context, &key, 481, "Call/Transaction Does Not Exist"),
                }
            }
            "CANCEL" => {
                let invite = (key.0.clone(), "INVITE".to_owned());
                let known = self.servers.get(&invite).map(|server| server.code);
                let silent = known.is_some() && context.plans[call].outcome == Outcome::Silent;
                match known {
                    _ if silent => {}
                    Some(code) => {
                        self.respond(context, &key, 200, "OK");
                        if code < 200 {
                            self.respond(context, &invite, 487, "Request Terminated");
                        }
                    }
                    None => self.respond(context, &key, 481, "Call/Transaction Does Not Exist"),
                }
            }
            "BYE" => match self.dialogs.get_mut(&call) {
                Some(dialog) => {
                    dialog.is_over = true;
                    self.respond(context, &key, 200, "OK");
                }
                None => self.respond(context, &key, 481, "Call/Transaction Does Not Exist"),
            },
            other => return Err(format!("nobody sends {other} here")),
        }
        Ok(())
    }

    fn invited(&mut self, context: &mut Context<'_>, call: usize, key: &Key) {
        let plan = &context.plans[call];
        if plan.outcome == Outcome::Silent {
            return;
        }
        if plan.trying {
            self.respond(context, key, 100, "Trying");
        }
        if let Some(ring) = plan.ring {
            self.plan_action(context.now + ring, Action::Ring(key.clone()));
        }
        if let Outcome::Answer(after) | Outcome::Refuse(_, after) = plan.outcome {
            self.plan_action(context.now + after, Action::Final(key.clone()));
        }
    }

    fn acknowledged(&mut self, context: &mut Context<'_>, call: usize, ack: &Msg) {
        let (branch, number) = (ack.branch(), ack.number());
        let mut confirmed = None;
        for (key, server) in &mut self.servers {
            let is_2xx = (200..300).contains(&server.code);
            let is_its = if is_2xx { server.request.number() == number } else { key.0 == branch };
            if key.1 == "INVITE" && server.call == call && server.code >= 200 && is_its && !server.acked {
                server.acked = true;
                confirmed = is_2xx.then(|| server.request.start.starts_with("INVITE sip:+1555"));
            }
        }
        if confirmed == Some(true) {
            context.records[call].acked = true;
            self.talk(context, call, false);
        }
    }

    /// The call is up: what this side does with it.
    fn talk(&mut self, context: &Context<'_>, call: usize, is_caller: bool) {
        let plan = &context.plans[call];
        if plan.caller_hangs_up == is_caller {
            self.plan_action(context.now + plan.talk + SECOND, Action::HangUp(call));
        }
        if plan.reinvite.is_some_and(|(by_caller, _)| by_caller == is_caller) {
            self.plan_action(context.now + plan.talk / 2, Action::Reinvite(call));
        }
    }

    fn respond(&mut self, context: &mut Context<'_>, key: &Key, code: u16, reason: &str) {
        let own = self.address;
        let Some(server) = self.servers.get_mut(key) else { return };
        if server.code >= 200 {
            return;
        }
        let (call, request) = (server.call, &server.request);
        let opens = request.start.starts_with("INVITE sip:+1555");
        let mut headers = Vec::new();
        let mut is_first = true;
        for (name, value) in &request.headers {
            let mut value = value.clone();
            if crate::wire::is_name(name, "Via") && std::mem::take(&mut is_first) {
                // RFC 3581: where it came from.
                value = value.replacen(";rport", &format!(";rport={}", server.reply_to.port()), 1);
                value += &format!(";received={}", server.reply_to.ip());
            }
            if crate::wire::is_name(name, "To") && request.tag("To").is_empty() && code > 100 {
                value += &format!(";tag=callee{call}");
            }
            if name == "Record-Route"
                && opens
                && context.plans[call].callee_proxy
                && !headers.iter().any(|(name, _)| name == "Record-Route")
            {
                let proxy = SocketAddr::new(own.ip(), PROXY_PORT);
                context.records[call].places.insert(proxy);
                headers.push(("Record-Route".to_owned(), format!("<sip:{proxy};lr>")));
            }
            let is_copied = ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"];
            if is_copied.iter().any(|copied| crate::wire::is_name(name, copied)) {
                headers.push((name.clone(), value));
            }
        }
        let contact = self.dialogs.get(&call).map_or(own, |dialog| dialog.contact);
        if key.1 == "INVITE" && code > 100 {
            headers.push(("Contact".into(), format!("<sip:callee@{contact}>")));
            context.records[call].places.insert(contact);
        }
        headers.push(("X-Answer".into(), "\u{e9} kept".into()));
        headers.push(("Content-Length".into(), "6".into()));
        let response = Msg { start: format!("SIP/2.0 {code} {reason}"), headers, body: b"answer".to_vec() };
        context.out.push(Datagram { from: server.reply_from, to: server.reply_to, bytes: response.to_bytes() });
        server.code = code;
        server.until = context.now + LIFETIME;
        server.last = Some(response.clone());
        if key.1 == "INVITE" && code >= 200 {
            self.plan_action(context.now + T1, Action::Repeat(key.clone()));
        }
        if opens && (200..300).contains(&code) {
            let request = &self.servers[key].request;
            let mut dialog = Dialog {
                is_caller: false,
                local: response.get("To").to_owned(),
                remote: request.get("From").to_owned(),
                routes: response.list("Record-Route"),
                target: uri_of(&request.list("Contact")[0]).to_owned(),
                number: 100,
                contact: own,
                ack: None,
                is_over: false,
                is_reinviting: false,
            };
            dialog.leave_own_proxies(own);
            self.dialogs.insert(call, dialog);
            context.records[call].answered = true;
        }
    }

    fn response(&mut self, context: &mut Context<'_>, call: usize, to: SocketAddr, msg: &Msg) -> Result<(), String> {
        let (via, branch, code) = (msg.top_via(), msg.branch(), msg.code());
        if !self.branches.contains(&branch) || sent_by(&via) != self.address.to_string() || to != self.address {
            return Err(format!("a response to somebody else's request arrived: {via}"));
        }
        let key = (branch, msg.method().to_owned());
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let sent: Vec<String> = client.request.list("Via").into_iter().skip(1).collect();
        if msg.list("Via").into_iter().skip(1).ne(sent) {
            return Err("the Vias of earlier hops are not what they were".to_owned());
        }
        if parameter(&via, "rport").is_some_and(|port| port != self.address.port().to_string()) {
            return Err(format!("rport is not this agent's: {via}"));
        }
        let is_invite = key.1 == "INVITE";
        let is_first_invite = client.request.start.starts_with("INVITE sip:+1555");
        if code < 200 {
            client.is_calling &= !is_invite;
            if client.code < 200 {
                client.code = code;
            }
            if client.wants_cancel {
                self.cancel(context, call);
            }
            return Ok(());
        }
        if client.code >= 200 {
            // A retransmission, or a second final response: acknowledged by its kind.
            let refused = client.ack.clone().filter(|_| code >= 300);
            let dialog = self.dialogs.get(&call).and_then(|dialog| dialog.ack.clone());
            let accepted = dialog.filter(|ack| is_invite && code < 300 && ack.number() == msg.number());
            if let Some(ack) = refused.or(accepted) {
                self.send(context, &ack);
            }
            if is_first_invite && !context.records[call].finals.contains(&code) {
                context.records[call].finals.push(code);
            }
            return Ok(());
        }
        client.code = code;
        let wants_cancel = client.wants_cancel;
        match key.1.as_str() {
            "INVITE" if is_first_invite => {
                context.records[call].finals.push(code);
                context.records[call].ended = context.now;
            }
            "INVITE" => context.records[call].reinvites.push(code),
            "BYE" => context.records[call].byes.push(code),
            _ => {}
        }
        if !is_invite {
            return Ok(());
        }
        if code >= 300 {
            let mut ack = client.request.clone();
            ack.start = ack.start.replacen("INVITE", "ACK", 1);
            ack.body.clear();
            let via = ack.headers[0].clone();
            let keep = ["Max-Forwards", "From", "f", "Call-ID", "i", "Route"];
            ack.headers.retain(|(name, _)| keep.contains(&name.as_str()));
            ack.headers.insert(0, via);
            ack.headers.push(("To".into(), msg.get("To").to_owned()));
            ack.headers.push(("CSeq".into(), format!("{} ACK", msg.number())));
            ack.headers.push(("Content-Length".into(), "0".into()));
            client.ack = Some(ack.clone());
            self.send(context, &ack);
            if let Some(dialog) = self.dialogs.get_mut(&call) {
                dialog.is_reinviting = false;
            }
            return Ok(());
        }
        let target =
            msg.list("Contact").first().map(|contact| uri_of(contact).to_owned()).ok_or("a 2xx without a Contact")?;
        if is_first_invite {
            let mut dialog = Dialog {
                is_caller: true,
                local: client.request.get("From").to_owned(),
                remote: msg.get("To").to_owned(),
                routes: msg.list("Record-Route").into_iter().rev().collect(),
                target,
                number: 1,
                contact: self.address,
                ack: None,
                is_over: false,
                is_reinviting: false,
            };
            dialog.leave_own_proxies(self.address);
            if !dialog.routes.first().is_some_and(|route| address(route) == Some(context.edge)) {
                return Err(format!("no Record-Route of the edge in a 2xx: {:?}", dialog.routes));
            }
            self.dialogs.insert(call, dialog);
        } else if let Some(dialog) = self.dialogs.get_mut(&call) {
            dialog.target = target;
            dialog.is_reinviting = false;
        }
        let ack = self.in_dialog(call, "ACK", Some(msg.number()));
        self.send(context, &ack);
        if let Some(dialog) = self.dialogs.get_mut(&call) {
            dialog.ack = Some(ack);
        }
        if is_first_invite && wants_cancel {
            self.hang_up(context, call);
        } else if is_first_invite {
            self.talk(context, call, true);
        }
        Ok(())
    }

    // Transactions and messages.

    fn open(&mut self, context: &mut Context<'_>, call: usize, request: Msg) {
        let key = (request.branch(), request.method().to_owned());
        self.send(context, &request);
        let client = Client {
            call,
            request,
            interval: T1,
            until: context.now + LIFETIME,
            is_calling: true,
            code: 0,
            ack: None,
            wants_cancel: false,
            has_cancelled: false,
        };
        self.clients.insert(key.clone(), client);
        self.plan_action(context.now + T1, Action::Resend(key));
    }

    fn resend(&mut self, context: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(&key).filter(|client| client.code < 200) else { return };
        let call = client.call;
        let is_first_invite = client.request.start.starts_with("INVITE sip:+1555");
        if !client.is_calling && is_first_invite {
            return;
        }
        if client.until <= context.now {
            self.clients.remove(&key);
            if is_first_invite {
                context.records[call].caller_timed_out = true;
            }
            if let Some(dialog) = self.dialogs.get_mut(&call).filter(|_| key.1 == "INVITE") {
                dialog.is_reinviting = false;
            }
            return;
        }
        let request = client.request.clone();
        let is_calling = client.is_calling;
        client.interval = if key.1 == "INVITE" { client.interval * 2 } else { (client.interval * 2).min(T2) };
        let at = (context.now + client.interval).min(client.until);
        if is_calling {
            self.send(context, &request);
        }
        self.plan_action(at, Action::Resend(key));
    }

    /// A final response to an INVITE is sent again until its ACK comes.
    fn repeat(&mut self, context: &mut Context<'_>, key: Key) {
        let Some(server) = self.servers.get_mut(&key).filter(|server| !server.acked) else { return };
        if server.until <= context.now {
            let call = server.call;
            if (200..300).contains(&server.code) {
                // RFC 3261 §13.3.1.4: without an ACK the call is ended.
                self.hang_up(context, call);
            }
            return;
        }
        if let Some(last) = &server.last {
            context.out.push(Datagram { from: server.reply_from, to: server.reply_to, bytes: last.to_bytes() });
        }
        server.interval = (server.interval * 2).min(T2);
        let at = (context.now + server.interval).min(server.until);
        self.plan_action(at, Action::Repeat(key));
    }

    fn in_dialog(&mut self, call: usize, method: &str, number: Option<u32>) -> Msg {
        let via = self.new_via(call % 2 == 0);
        let own = self.address;
        let Some(dialog) = self.dialogs.get_mut(&call) else { unreachable!("only called with a dialog") };
        let number = number.unwrap_or_else(|| {
            dialog.number += 1;
            dialog.number
        });
        let mut headers = vec![("Via".to_owned(), via)];
        if call % 3 == 0 {
            headers.push(("Route".into(), dialog.routes.join(", ")));
        } else {
            headers.extend(dialog.routes.iter().map(|route| ("Route".to_owned(), route.clone())));
        }
        let caller = if dialog.is_caller { own } else { address(&dialog.remote).unwrap_or(own) };
        headers.extend([
            ("Max-Forwards".to_owned(), "70".to_owned()),
            ("From".into(), dialog.local.clone()),
            ("To".into(), dialog.remote.clone()),
            ("Call-ID".into(), format!("call-{call}-{}", caller.ip())),
            ("CSeq".into(), format!("{number} {method}")),
        ]);
        if method == "INVITE" {
            headers.push(("Contact".into(), format!("<sip:moved@{}>", dialog.contact)));
        }
        headers.push(("Content-Length".into(), "0".into()));
        Msg { start: format!("{method} {} SIP/2.0", dialog.target), headers, body: Vec::new() }
    }

    /// To the first hop: the edge, by Route or, for the first INVITE, since the carrier sends it there.
    fn send(&self, context: &mut Context<'_>, request: &Msg) {
        let to = request.list("Route").first().and_then(|route| address(route)).unwrap_or(context.edge);
        context.out.push(Datagram { from: self.address, to, bytes: request.to_bytes() });
    }

    fn new_via(&mut self, rport: bool) -> String {
        self.serial += 1;
        let branch = format!("z9hG4bK{}x{}", self.address.ip().to_string().replace('.', "-"), self.serial);
        self.branches.insert(branch.clone());
        format!("SIP/2.0/UDP {};branch={branch}{}", self.address, if rport { ";rport" } else { "" })
    }

    fn plan_action(&mut self, at: u64, action: Action) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), action);
    }
}

impl Dialog {
    /// The proxy of this side's own carrier is part of this agent: it needs no hop.
    fn leave_own_proxies(&mut self, own: SocketAddr) {
        while self.routes.first().and_then(|route| address(route)).is_some_and(|route| route.ip() == own.ip()) {
            self.routes.remove(0);
        }
    }
}
