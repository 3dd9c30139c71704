//! Client and server transactions (RFC 3261 §17): retransmission, absorption, the ACK of a non-2xx.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rsip::headers::{self as header, UntypedHeader};
use rsip::{Header, Method, Request, Response};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::message::{self, Via, value, values};
use super::{Agent, AgentError, Hop, Received, Side, unique, wait};
use crate::spec::Transport;

/// A client transaction in progress.
#[derive(Debug)]
pub(super) struct ClientTransaction {
    pub(super) agent: Agent,
    pub(super) request: Request,
    pub(super) to: Hop,
    pub(super) sent: Instant,
    key: (String, String),
    responses: mpsc::UnboundedReceiver<Received<Response>>,
}

impl ClientTransaction {
    /// Puts a Via with `branch` on top of `request`, sends it, and over UDP goes on sending it until a response comes (timers A and E).
    pub(super) fn start(
        agent: &Agent,
        mut request: Request,
        branch: String,
        to: Hop,
        side: Side,
    ) -> Result<Self, AgentError> {
        push_via(agent, &mut request, &branch, to.transport);
        let key = (branch, request.method.to_string());
        let (sender, responses) = mpsc::unbounded_channel();
        let raw = request.to_string();
        let proceeding = Arc::new(AtomicBool::new(false));
        let retransmission = tokio::spawn({
            let (weak, settings, raw, proceeding) =
                (agent.downgrade(), agent.settings().clone(), raw.clone(), proceeding.clone());
            let invite = request.method == Method::Invite;
            async move {
                if to.transport != Transport::Udp {
                    return;
                }
                let mut interval = settings.t1;
                loop {
                    tokio::time::sleep(interval).await;
                    let Some(inner) = weak.upgrade() else { return };
                    if (Agent { inner }).transmit(&raw, to, side).is_err() {
                        return;
                    }
                    interval = match invite {
                        true => interval * 2,
                        false if proceeding.load(Ordering::Relaxed) => settings.t2,
                        false => (interval * 2).min(settings.t2),
                    };
                }
            }
        })
        .abort_handle();
        let entry = ClientEntry {
            side,
            request: request.clone(),
            to,
            responses: sender,
            retransmission,
            proceeding,
            ack: None,
        };
        agent.state().clients.insert(key.clone(), entry);
        let transaction = Self { agent: agent.clone(), request, to, sent: Instant::now(), key, responses };
        agent.transmit(&raw, to, side)?;
        Ok(transaction)
    }

    /// The next response.
    pub(super) async fn response(&mut self, what: impl FnOnce() -> String) -> Result<Received<Response>, AgentError> {
        wait(&mut self.responses, self.agent.settings().patience, what).await
    }

    /// The final response to a non-INVITE request.
    pub(super) async fn final_response(&mut self) -> Result<Received<Response>, AgentError> {
        let method = self.request.method;
        loop {
            let received = self.response(|| format!("the response to {method}")).await?;
            if received.message.status_code.code() >= 200 {
                return Ok(received);
            }
        }
    }

    /// Remembers the ACK of a 2xx, which answers each retransmission of it (§13.2.2.4).
    pub(super) fn acknowledge(&self, ack: String, to: Hop) {
        if let Some(entry) = self.agent.state().clients.get_mut(&self.key) {
            entry.ack = Some((ack, to));
        }
    }

    /// The branch.
    pub(super) fn branch(&self) -> &str {
        &self.key.0
    }
}

impl Drop for ClientTransaction {
    fn drop(&mut self) {
        // The entry stays: a late response still gets its ACK.
        if let Some(entry) = self.agent.state().clients.get(&self.key) {
            entry.retransmission.abort();
        }
    }
}

/// What the agent keeps of a client transaction.
#[derive(Debug)]
pub(super) struct ClientEntry {
    side: Side,
    request: Request,
    to: Hop,
    responses: mpsc::UnboundedSender<Received<Response>>,
    retransmission: AbortHandle,
    proceeding: Arc<AtomicBool>,
    ack: Option<(String, Hop)>,
}

impl ClientEntry {
    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// Why the response is not one to this request, though branch and method are the same (§8.2.6.2 demands that these are copied).
    pub(super) fn mismatch(&self, response: &Response) -> Option<&'static str> {
        let (ours, theirs) = (&self.request.headers, &response.headers);
        let same = |name: &'static str| matches!((value(ours, name), value(theirs, name)), (Ok(a), Ok(b)) if a == b);
        let tag = |headers, name| value(headers, name).ok().and_then(|value| message::tag(&value));
        if !same("Call-ID") {
            return Some("Call-ID of another call");
        }
        if !same("CSeq") {
            return Some("CSeq of another request");
        }
        if tag(ours, "From") != tag(theirs, "From") {
            return Some("From tag changed");
        }
        let to = tag(ours, "To");
        (to.is_some() && to != tag(theirs, "To")).then_some("To tag changed")
    }

    /// Takes a response; returns the ACK that answers it, if it is one that the transaction answers itself.
    pub(super) fn handle(&mut self, received: Received<Response>) -> Option<(String, Hop)> {
        let (code, invite) = (received.message.status_code.code(), self.request.method == Method::Invite);
        self.proceeding.store(true, Ordering::Relaxed);
        if code >= 200 || invite {
            self.retransmission.abort();
        }
        if invite && code >= 300 && self.ack.is_none() {
            self.ack = self.ack_of_failure(&received.message).map(|ack| (ack, self.to));
        }
        let _ = self.responses.send(received);
        (invite && code >= 200).then(|| self.ack.clone()).flatten()
    }

    /// §17.1.1.3: same Request-URI, Call-ID, From, CSeq number, Route and top Via; To of the response.
    fn ack_of_failure(&self, response: &Response) -> Option<String> {
        let headers = &self.request.headers;
        let (number, _) = message::cseq(headers).ok()?;
        let mut kept = vec![Header::Via(header::Via::new(values(headers, "Via").into_iter().next()?))];
        kept.extend(
            headers
                .iter()
                .filter(|header| matches!(header, Header::Route(_) | Header::From(_) | Header::CallId(_)))
                .cloned(),
        );
        kept.push(Header::To(header::To::new(value(&response.headers, "To").ok()?)));
        kept.push(Header::CSeq(header::CSeq::new(format!("{number} ACK"))));
        kept.push(Header::MaxForwards(header::MaxForwards::new("70")));
        kept.push(Header::ContentLength(header::ContentLength::new("0")));
        let ack = Request {
            method: Method::Ack,
            uri: self.request.uri.clone(),
            version: rsip::Version::V2,
            headers: kept.into(),
            body: Vec::new(),
        };
        Some(ack.to_string())
    }
}

/// What matches a request to its server transaction (§17.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ServerKey {
    branch: String,
    sent_by: String,
    method: String,
}

impl ServerKey {
    pub(super) fn new(via: &Via, method: Method) -> Self {
        Self { branch: via.branch.clone(), sent_by: via.sent_by(), method: method.to_string() }
    }
}

/// What happens to an INVITE server transaction after its INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InviteEvent {
    /// A CANCEL came, and was answered 200.
    Cancelled,
    /// The ACK of a non-2xx came.
    Acked,
}

/// What the agent keeps of a server transaction.
#[derive(Debug)]
pub(super) struct ServerEntry {
    pub(super) side: Side,
    /// The response that answers a retransmission.
    pub(super) last: Option<(String, Hop)>,
    /// Status code of the final response, 0 before it.
    pub(super) final_code: u16,
    events: Option<mpsc::UnboundedSender<InviteEvent>>,
    retransmission: Option<AbortHandle>,
}

impl ServerEntry {
    pub(super) fn tell(&self, event: InviteEvent) {
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }

    /// The ACK came.
    pub(super) fn stop(&mut self) {
        if let Some(retransmission) = self.retransmission.take() {
            retransmission.abort();
        }
    }
}

/// A request that came in, with the way to answer it.
#[derive(Debug)]
pub(super) struct ServerTransaction {
    pub(super) agent: Agent,
    pub(super) received: Received<Request>,
    side: Side,
    key: ServerKey,
    to: Hop,
}

impl ServerTransaction {
    /// Takes in a request. An ACK gets no transaction, since nothing answers it.
    pub(super) fn open(
        agent: &Agent,
        received: Received<Request>,
        side: Side,
        events: Option<mpsc::UnboundedSender<InviteEvent>>,
    ) -> Result<Self, AgentError> {
        let via = Via::top(&received.message.headers)?;
        let key = ServerKey::new(&via, received.message.method);
        if received.message.method != Method::Ack {
            let entry = ServerEntry { side, last: None, final_code: 0, events, retransmission: None };
            agent.state().servers.insert(key.clone(), entry);
        }
        let to = via.reply_hop(Hop { transport: received.transport, address: received.source });
        Ok(Self { agent: agent.clone(), received, side, key, to })
    }

    /// Answers with `code`, outside of any dialog of ours.
    pub(super) fn reply(&self, code: u16) -> Result<(), AgentError> {
        self.respond(code, &unique(), Vec::new(), Vec::new())
    }

    /// Answers with `code`. `tag` goes into To when it has none. A final response to an INVITE is sent again until its ACK comes, at
    /// intervals from T1 to T2 (§13.3.1.4, §17.2.1).
    pub(super) fn respond(&self, code: u16, tag: &str, extra: Vec<Header>, body: Vec<u8>) -> Result<(), AgentError> {
        let request = &self.received.message;
        let mut headers: Vec<Header> = message::vias_for_response(&request.headers, self.received.source)?
            .into_iter()
            .map(|via| Header::Via(header::Via::new(via)))
            .collect();
        let mut to = value(&request.headers, "To")?;
        if message::tag(&to).is_none() && code > 100 {
            to = format!("{to};tag={tag}");
        }
        headers.push(Header::From(header::From::new(value(&request.headers, "From")?)));
        headers.push(Header::To(header::To::new(to)));
        headers.push(Header::CallId(header::CallId::new(value(&request.headers, "Call-ID")?)));
        headers.push(Header::CSeq(header::CSeq::new(value(&request.headers, "CSeq")?)));
        headers.extend(extra);
        headers.push(Header::ContentLength(header::ContentLength::new(body.len().to_string())));
        let response =
            Response { status_code: message::status(code), version: rsip::Version::V2, headers: headers.into(), body };
        let raw = response.to_string();
        {
            let mut state = self.agent.state();
            if let Some(entry) = state.servers.get_mut(&self.key) {
                entry.last = Some((raw.clone(), self.to));
                if code >= 200 {
                    entry.final_code = code;
                }
                // A 2xx is sent again over any transport, since hops behind may be UDP; another response is not.
                let again = (200..300).contains(&code) || code >= 300 && self.to.transport == Transport::Udp;
                if again && request.method == Method::Invite {
                    entry.retransmission = Some(self.repeat(raw.clone()));
                }
            }
        }
        self.agent.transmit(&raw, self.to, self.side)
    }

    /// Ends the retransmission of a 2xx.
    pub(super) fn stop(&self) {
        if let Some(entry) = self.agent.state().servers.get_mut(&self.key) {
            entry.stop();
        }
    }

    fn repeat(&self, raw: String) -> AbortHandle {
        let (weak, to, side) = (self.agent.downgrade(), self.to, self.side);
        let (t1, t2) = (self.agent.settings().t1, self.agent.settings().t2);
        let task = async move {
            let (mut interval, mut waited) = (t1, Duration::ZERO);
            // 64 × T1: timer H, and the end of the 2xx's retransmission.
            while waited < t1 * 64 {
                tokio::time::sleep(interval).await;
                waited += interval;
                interval = (interval * 2).min(t2);
                let Some(inner) = weak.upgrade() else { return };
                if (Agent { inner }).transmit(&raw, to, side).is_err() {
                    return;
                }
            }
        };
        tokio::spawn(task).abort_handle()
    }
}

/// Puts the agent's Via on top. By TLS it offers its connection for requests the other way (RFC 5923 §7).
pub(super) fn push_via(agent: &Agent, request: &mut Request, branch: &str, transport: Transport) {
    let name = transport.as_str().to_ascii_uppercase();
    let alias = if transport == Transport::Tls { ";alias" } else { "" };
    let via = format!("SIP/2.0/{name} {};branch={branch};rport{alias}", agent.address());
    let mut headers: Vec<Header> = vec![Header::Via(header::Via::new(via))];
    headers.extend(request.headers.iter().cloned());
    request.headers = headers.into();
}
