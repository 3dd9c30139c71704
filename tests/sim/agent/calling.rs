//! The side that calls: INVITE, CANCEL, and what becomes of responses.

use std::net::SocketAddr;

use super::{Action, Agent, Client, Context, Dialog, Key, LIFETIME, PATIENCE, PROXY_PORT};
use crate::wire::{Msg, address, parameter, sent_by, uri_of};

impl Agent {
    pub(super) fn call(&mut self, context: &mut Context<'_>, call: usize) {
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

    pub(super) fn cancel(&mut self, context: &mut Context<'_>, call: usize) {
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

    pub(super) fn give_up(&mut self, context: &mut Context<'_>, call: usize) {
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

    pub(super) fn response(
        &mut self,
        context: &mut Context<'_>,
        call: usize,
        to: SocketAddr,
        msg: &Msg,
    ) -> Result<(), String> {
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
            if dialog.routes.first().is_none_or(|route| address(route) != Some(context.edge)) {
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
}
