//! The side that calls: INVITE, CANCEL, and what becomes of responses.

use std::net::SocketAddr;

use sipedge_proxy::engine::Transport;

use super::{Action, Agent, Came, Client, Context, Dialog, DialogKey, Key, LIFETIME, PATIENCE, PROXY_PORT};
use crate::plan::SECOND;
use crate::profile::{edge, transport_suffix};
use crate::wire::{Msg, hop, parameter, sent_by, uri_of};

impl Agent {
    pub(super) fn call(&mut self, context: &mut Context<'_>, call: usize) {
        let plans = context.plans;
        let plan = &plans[call];
        let transport = plan.transport;
        let own = self.address;
        let edge = edge(Transport::Udp);
        let contact = Self::contact(context, call, true, (transport, own));
        let mut headers = vec![("Via".to_owned(), self.new_via(transport, plan.rport))];
        if plan.odd {
            let hop = "SIP/2.0/UDP 10.9.9.9:5060;branch=z9hG4bKhop";
            headers.push(("Subject".into(), "folded\r\n  twice\r\n\tover".into()));
            headers.push(("v".into(), format!("{hop}1, {hop}2")));
            headers.push(("Via".into(), format!("{hop}3")));
            // A pre-loaded route leads nowhere but to the edge.
            headers.push(("Route".into(), format!("<sip:{};lr>, <sip:198.51.100.99;lr>", edge)));
            headers.push(("X-Odd".into(), "\u{ff}\u{fe}\u{80} <;\"".into()));
        }
        let short = |name: &str, compact: &str| if plan.odd { compact.to_owned() } else { name.to_owned() };
        let mut headers_after = vec![
            ("Max-Forwards".to_owned(), "70".to_owned()),
            (short("From", "f"), format!("\"A, B\" <sip:+1444@{own}>;tag=caller{call}")),
            (short("To", "t"), format!("<sip:+1555{call}@{}>", edge)),
            (short("Call-ID", "i"), format!("call-{call}-{}", own.ip())),
            ("CSeq".into(), "1 INVITE".into()),
            (short("Contact", "m"), format!("<{contact}>")),
            ("X-Twice".into(), "one".into()),
            ("Content-Type".into(), "application/octet-stream".into()),
            ("X-Twice".into(), "two".into()),
            (short("Content-Length", "l"), plan.body.len().to_string()),
        ];
        if plan.caller_proxy {
            let proxy = SocketAddr::new(own.ip(), PROXY_PORT);
            context.records[call].places.insert(proxy);
            headers.push(("Record-Route".into(), format!("<sip:{proxy}{};lr>", transport_suffix(transport))));
        }
        headers.append(&mut headers_after);
        let start = format!("INVITE sip:+1555{call}@{edge} SIP/2.0");
        self.open(context, call, None, Msg { start, headers, body: plan.body.clone() });
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
        self.open(context, call, None, cancel);
        // The edge takes as long after its own CANCEL, and its answer has a way to go.
        self.plan_action(context.now + LIFETIME + 5 * SECOND, Action::GiveUp(call));
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
        came: Came,
        msg: &Msg,
    ) -> Result<(), String> {
        let (via, branch, code) = (msg.top_via(), msg.branch(), msg.code());
        if !self.branches.contains(&branch) || sent_by(&via) != self.address.to_string() || came.to != self.address {
            return Err(format!("a response to somebody else's request arrived: {via}"));
        }
        let key = (branch, msg.method().to_owned());
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let sent: Vec<String> = client.request.list("Via").into_iter().skip(1).collect();
        if msg.list("Via").into_iter().skip(1).ne(sent) {
            return Err("the Vias of earlier hops are not what they were".to_owned());
        }
        let is_datagram = came.transport == Transport::Udp;
        if is_datagram && parameter(&via, "rport").is_some_and(|port| port != self.address.port().to_string()) {
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
        let tag = msg.tag("To").to_owned();
        if client.code >= 200 {
            let refused = client.ack.clone().filter(|_| code >= 300);
            if is_first_invite && !context.records[call].finals.contains(&code) {
                context.records[call].finals.push(code);
            }
            if is_invite && code < 300 {
                return self.answered_again(context, &(call, tag), &key, msg);
            }
            // A retransmission of a refusal.
            if let Some(ack) = refused {
                self.send(context, &ack);
            }
            return Ok(());
        }
        let of = client.dialog.clone();
        let is_further = of.as_ref().and_then(|of| self.dialogs.get(of)).is_some_and(|dialog| dialog.is_further);
        client.code = code;
        let wants_cancel = client.wants_cancel;
        match key.1.as_str() {
            "INVITE" if is_first_invite => {
                context.records[call].finals.push(code);
                context.records[call].ended = context.now;
            }
            "INVITE" => context.records[call].reinvites.push(code),
            "BYE" if is_further => context.records[call].further_byes.push(code),
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
            if let Some(dialog) = of.and_then(|of| self.dialogs.get_mut(&of)) {
                dialog.is_reinviting = false;
            }
            return Ok(());
        }
        let of = (call, tag);
        if is_first_invite {
            self.dialog_of(context, &of, &key, msg)?;
        } else if let Some(dialog) = self.dialogs.get_mut(&of) {
            let contact = msg.list("Contact").first().cloned().ok_or("a 2xx without a Contact")?;
            dialog.target = uri_of(&contact).to_owned();
            dialog.is_reinviting = false;
        }
        self.confirm(context, &of, msg.number());
        if is_first_invite && wants_cancel {
            self.hang_up(context, &of);
        } else if is_first_invite {
            self.talk(context, &of, true);
        }
        Ok(())
    }

    /// A 2xx after a final response: a retransmission gets its ACK again, a further answer is ended at once (RFC 3261 §13.2.2.4).
    fn answered_again(
        &mut self,
        context: &mut Context<'_>,
        of: &DialogKey,
        key: &Key,
        msg: &Msg,
    ) -> Result<(), String> {
        if let Some(dialog) = self.dialogs.get(of) {
            if let Some(ack) = dialog.acks.get(&msg.number()).cloned() {
                self.send(context, &ack);
            }
            return Ok(());
        }
        self.dialog_of(context, of, key, msg)?;
        if let Some(dialog) = self.dialogs.get_mut(of) {
            dialog.is_further = true;
        }
        context.records[of.0].further += 1;
        self.confirm(context, of, msg.number());
        self.hang_up(context, of);
        Ok(())
    }

    /// The dialog that a 2xx to the first INVITE opens.
    fn dialog_of(&mut self, context: &Context<'_>, of: &DialogKey, key: &Key, msg: &Msg) -> Result<(), String> {
        let Some(client) = self.clients.get(key) else { return Ok(()) };
        let contact = msg.list("Contact").first().cloned().ok_or("a 2xx without a Contact")?;
        let routes = msg.list("Record-Route").into_iter().rev().collect();
        let dialog = Dialog::new(true, client.request.get("From"), msg.get("To"), routes, &contact, self.address);
        let transport = context.plans[of.0].transport;
        if dialog.routes.first().and_then(|route| hop(route)) != Some((transport, edge(transport))) {
            return Err(format!("no Record-Route of the edge in a 2xx: {:?}", dialog.routes));
        }
        self.dialogs.insert(of.clone(), dialog);
        Ok(())
    }

    fn confirm(&mut self, context: &mut Context<'_>, of: &DialogKey, number: u32) {
        if !self.dialogs.contains_key(of) {
            return;
        }
        let ack = self.in_dialog(context, of, "ACK", Some(number));
        self.send(context, &ack);
        if let Some(dialog) = self.dialogs.get_mut(of) {
            dialog.acks.insert(number, ack);
        }
    }
}
