//! The side that is called, and both sides within a call: requests and their responses.

use std::net::SocketAddr;

use super::{Action, Agent, Context, Datagram, Dialog, Key, LIFETIME, PROXY_PORT, Server, T1, T2};
use crate::plan::Outcome;
use crate::wire::{Msg, address, parameter, sent_by, uri_of};

impl Agent {
    pub(super) fn request(
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

    pub(super) fn invited(&mut self, context: &mut Context<'_>, call: usize, key: &Key) {
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
            self.talk(context, call, false);
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

    /// A final response to an INVITE is sent again until its ACK comes.
    pub(super) fn repeat(&mut self, context: &mut Context<'_>, key: Key) {
        let Some(server) = self.servers.get_mut(&key).filter(|server| !server.acked) else { return };
        if server.until <= context.now {
            let call = server.call;
            if (200..300).contains(&server.code) {
                // RFC 3261 §13.3.1.4: without an ACK the call is ended.
                self.hang_up(context, call);
            } else {
                context.records[call].unacknowledged += 1;
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
}
