//! The side that is called, and both sides within a call: requests and their responses.

use std::net::SocketAddr;

use sipedge_proxy::engine::Transport;

use super::{Action, Agent, Came, Context, Dialog, Key, LIFETIME, PROXY_PORT, Server, T1, T2};
use crate::plan::Outcome;
use crate::profile::{edge, transport_suffix};
use crate::wire::{Msg, address, hop, parameter, sent_by, transport_of, uri_of};

impl Agent {
    pub(super) fn request(
        &mut self,
        context: &mut Context<'_>,
        call: usize,
        came: Came,
        msg: Msg,
    ) -> Result<(), String> {
        let via = msg.top_via();
        let is_edge = sent_by(&via) == edge(came.transport).to_string() && transport_of(&via) == Some(came.transport);
        if !is_edge || parameter(&via, "rport") != Some("") {
            return Err(format!("the topmost Via is not the edge's: {via}"));
        }
        let is_own_route = |route: &String| address(route).is_some_and(|route| route.ip() == context.edge);
        if msg.list("Route").iter().any(is_own_route) {
            return Err("the edge's own Route is still there".to_owned());
        }
        if msg.start.starts_with("ACK sip:+1555") && !self.servers.contains_key(&(msg.branch(), "INVITE".to_owned())) {
            // Of a refusal that this agent has forgotten.
            return Ok(());
        }
        let initial = matches!(msg.method(), "INVITE" | "CANCEL") && msg.tag("To").is_empty();
        let absorbed = msg.method() == "ACK" && self.servers.contains_key(&(msg.branch(), "INVITE".to_owned()));
        if initial || (absorbed && msg.start.starts_with("ACK sip:+1555")) {
            let host = context.hosts.get(&self.address).ok_or("a call to somebody who is not called")?;
            if msg.uri() != format!("sip:+1555{call}@{host}") {
                return Err(format!("Request-URI {} instead of one at {host}", msg.uri()));
            }
        } else if msg.method() != "ACK" || !absorbed {
            let next = msg.list("Route").first().map_or_else(|| hop(msg.uri()), |route| hop(route));
            if next != Some((came.transport, came.to)) {
                return Err(format!("a request for {next:?} arrived at {came:?}"));
            }
        }
        let key = (msg.branch(), msg.method().to_owned());
        if let Some(server) = self.servers.get_mut(&key) {
            // The latest request says where its response goes.
            server.came = came;
            // RFC 6026 §7.1: an INVITE that has been accepted is absorbed; its 2xx is repeated by itself.
            let is_accepted = key.1 == "INVITE" && (200..300).contains(&server.code);
            if let Some(last) = server.last.as_ref().filter(|_| !is_accepted) {
                context.out.push(Self::reply(&server.came, last));
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
                let top = record_routes.first().and_then(|route| hop(route));
                if top != Some((came.transport, edge(came.transport))) {
                    return Err(format!("the first Record-Route is not the edge's: {record_routes:?}"));
                }
                if msg.body != context.plans[call].body {
                    return Err("the body has changed".to_owned());
                }
            }
            _ => {}
        }
        let method = key.1.clone();
        let of = (call, msg.tag("From").to_owned());
        let server = Server {
            call,
            request: msg,
            came,
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
                match self.dialogs.get_mut(&of) {
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
                let is_silent = self.part(context.plans, call).is_some_and(|part| part.outcome == Outcome::Silent);
                let silent = known.is_some() && is_silent;
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
            "BYE" => match self.dialogs.get_mut(&of) {
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

    pub(super) fn invited(&mut self, context: &mut Context<'_>, call: usize, key: &Key) {
        let Some(plan) = self.part(context.plans, call).filter(|part| part.outcome != Outcome::Silent) else { return };
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

    pub(super) fn acknowledged(&mut self, context: &mut Context<'_>, call: usize, ack: &Msg) {
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
            self.talk(context, &(call, ack.tag("From").to_owned()), false);
        }
    }

    pub(super) fn respond(&mut self, context: &mut Context<'_>, key: &Key, code: u16, reason: &str) {
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
                value = value.replacen(";rport", &format!(";rport={}", server.came.from.port()), 1);
                value += &format!(";received={}", server.came.from.ip());
            }
            if crate::wire::is_name(name, "To") && request.tag("To").is_empty() && code > 100 {
                value += &format!(";tag=callee{call}at{}", own.ip().to_string().rsplit('.').next().unwrap_or_default());
            }
            if name == "Record-Route"
                && opens
                && context.plans[call].callee_proxy
                && !headers.iter().any(|(name, _)| name == "Record-Route")
            {
                let proxy = SocketAddr::new(own.ip(), PROXY_PORT);
                context.records[call].places.insert(proxy);
                let suffix = transport_suffix(server.came.transport);
                headers.push(("Record-Route".to_owned(), format!("<sip:{proxy}{suffix};lr>")));
            }
            let is_copied = ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"];
            if is_copied.iter().any(|copied| crate::wire::is_name(name, copied)) {
                headers.push((name.clone(), value));
            }
        }
        let of = (call, request.tag("From").to_owned());
        let (contact, is_caller) =
            self.dialogs.get(&of).map_or((own, false), |dialog| (dialog.contact, dialog.is_caller));
        if key.1 == "INVITE" && code > 100 {
            let contact = Self::contact(context, call, is_caller, (server.came.transport, contact));
            headers.push(("Contact".into(), format!("<{contact}>")));
        }
        let wait = self.callee.and_then(|callee| context.plans[call].parts.get(callee)?.retry_after);
        if let Some(seconds) = wait.filter(|_| code == 503) {
            headers.push(("Retry-After".into(), seconds.to_string()));
        }
        headers.push(("X-Answer".into(), "\u{e9} kept".into()));
        headers.push(("Content-Length".into(), "6".into()));
        let response = Msg { start: format!("SIP/2.0 {code} {reason}"), headers, body: b"answer".to_vec() };
        context.out.push(Self::reply(&server.came, &response));
        server.code = code;
        server.until = context.now + LIFETIME;
        server.last = Some(response.clone());
        if key.1 == "INVITE" && code >= 200 {
            self.plan_action(context.now + T1, Action::Repeat(key.clone()));
        }
        if opens && (200..300).contains(&code) {
            let request = &self.servers[key].request;
            let (local, remote) = (response.get("To"), request.get("From"));
            let routes = response.list("Record-Route");
            let dialog = Dialog::new(false, local, remote, routes, &request.list("Contact")[0], own);
            self.dialogs.insert(of, dialog);
            context.records[call].answered = true;
        }
    }

    /// A final response to an INVITE is sent again until its ACK comes.
    pub(super) fn repeat(&mut self, context: &mut Context<'_>, key: Key) {
        let Some(server) = self.servers.get_mut(&key).filter(|server| !server.acked) else { return };
        let is_2xx = (200..300).contains(&server.code);
        if server.until <= context.now {
            let (call, tag) = (server.call, server.request.tag("From").to_owned());
            if is_2xx {
                // RFC 3261 §13.3.1.4: without an ACK the call is ended.
                self.hang_up(context, &(call, tag));
            } else {
                context.records[call].unacknowledged += 1;
            }
            return;
        }
        // Over a stream nothing is lost on its way: only a 2xx is repeated, since a proxy may have lost it.
        if let Some(last) = server.last.as_ref().filter(|_| is_2xx || server.came.transport == Transport::Udp) {
            context.out.push(Self::reply(&server.came, last));
        }
        server.interval = (server.interval * 2).min(T2);
        let at = (context.now + server.interval).min(server.until);
        self.plan_action(at, Action::Repeat(key));
    }
}
