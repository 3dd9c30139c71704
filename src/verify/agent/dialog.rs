//! Dialogs (RFC 3261 §12): route sets, tags, CSeq; BYE, re-INVITE and ACK at either end; requests with forged routes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rsip::headers::{self as header, UntypedHeader};
use rsip::{Header, Method, Request, Response};
use tokio::sync::mpsc;

use super::message::{self, uri_text, value, values};
use super::transaction::{ClientTransaction, ServerTransaction};
use super::{Agent, AgentError, DialogEntry, Hop, Received, Side, instead, unique, wait};
use crate::spec::Transport;

/// Subject of requests with a falsified route set, so that they are known as such in ladders, captures and logs.
pub(crate) const FORGED_SUBJECT: &str = "forged route";

/// One end of a call that is up. When it is dropped, requests to it get 481.
#[derive(Debug)]
pub struct Dialog {
    agent: Agent,
    side: Side,
    /// How its first INVITE travelled at this end, and so what its Contact says.
    transport: Transport,
    call_id: String,
    /// From of our requests.
    local: String,
    /// To of our requests.
    remote: String,
    /// URI of the peer's Contact.
    remote_target: String,
    /// Route values in the order in which our requests carry them.
    routes: Vec<String>,
    number: u32,
    requests: mpsc::UnboundedReceiver<ServerTransaction>,
    /// Requests that came while another one was waited for.
    waiting: VecDeque<ServerTransaction>,
    /// The INVITE whose 2xx waits for its ACK.
    unconfirmed: Option<ServerTransaction>,
}

/// How the route set of a request is falsified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteForgery {
    /// One character of each token changed.
    Altered,
    /// The URIs without what makes them the edge's: host, port and `lr` alone.
    Stripped,
    /// The route set of another call.
    Borrowed(Vec<String>),
}

impl Dialog {
    /// The caller's end (§12.1.2); sends the ACK.
    pub(super) fn of_caller(transaction: &ClientTransaction, answer: &Response) -> Result<Self, AgentError> {
        let request = &transaction.request;
        let mut routes = values(&answer.headers, "Record-Route");
        routes.reverse();
        let (number, _) = message::cseq(&request.headers)?;
        let (local, remote) = (value(&request.headers, "From")?, value(&answer.headers, "To")?);
        let dialog = Self::register(
            &transaction.agent,
            Side::Caller,
            transaction.to.transport,
            &answer.headers,
            local,
            remote,
            routes,
            number,
            None,
        )?;
        dialog.acknowledge(transaction, number)?;
        Ok(dialog)
    }

    /// The callee's end (§12.1.1).
    pub(super) fn of_callee(invite: ServerTransaction, local_tag: &str) -> Result<Self, AgentError> {
        let headers = &invite.received.message.headers;
        let local = format!("{};tag={local_tag}", value(headers, "To")?);
        let remote = value(headers, "From")?;
        let (remote_number, _) = message::cseq(headers)?;
        let routes = values(headers, "Record-Route");
        let mut dialog = Self::register(
            &invite.agent,
            Side::Callee,
            invite.received.transport,
            headers,
            local,
            remote,
            routes,
            0,
            Some(remote_number),
        )?;
        dialog.unconfirmed = Some(invite);
        Ok(dialog)
    }

    pub(super) fn answer_invite(&self, tag: &str, headers: Vec<Header>, body: Vec<u8>) -> Result<(), AgentError> {
        self.unconfirmed.as_ref().map_or(Ok(()), |invite| invite.respond(200, tag, headers, body))
    }

    /// The route set, top first: what [`RouteForgery::Borrowed`] takes.
    pub fn routes(&self) -> &[String] {
        &self.routes
    }

    /// Waits for the ACK of the last 2xx that this end sent.
    pub async fn ack(&mut self) -> Result<Received<Request>, AgentError> {
        let ack = self.request(Method::Ack).await?;
        if let Some(invite) = self.unconfirmed.take() {
            invite.stop();
        }
        Ok(ack.received)
    }

    /// Sends BYE and waits for its 200.
    pub async fn bye(&mut self) -> Result<Received<Response>, AgentError> {
        let (request, to) = self.build(Method::Bye, &self.routes.clone(), Vec::new())?;
        let mut transaction = self.start(request, to)?;
        let received = transaction.final_response().await?;
        match received.message.status_code.code() {
            200..300 => Ok(received),
            _ => Err(instead("the 200 response to BYE", &received)),
        }
    }

    /// Waits for BYE and answers it 200.
    pub async fn expect_bye(&mut self) -> Result<Received<Request>, AgentError> {
        let bye = self.request(Method::Bye).await?;
        bye.reply(200)?;
        Ok(bye.received)
    }

    /// Sends a re-INVITE, waits for its 200, and acknowledges it.
    pub async fn reinvite(&mut self) -> Result<Received<Response>, AgentError> {
        let (request, to) = self.build(Method::Invite, &self.routes.clone(), offer(self.agent.address()))?;
        let number = self.number;
        let mut transaction = self.start(request, to)?;
        loop {
            let received = transaction.response(|| "the 200 response to the re-INVITE".to_owned()).await?;
            match received.message.status_code.code() {
                ..200 => {}
                200..300 => {
                    self.remote_target = uri_text(&value(&received.message.headers, "Contact")?).to_owned();
                    self.acknowledge(&transaction, number)?;
                    return Ok(received);
                }
                _ => return Err(instead("the 200 response to the re-INVITE", &received)),
            }
        }
    }

    /// Waits for a re-INVITE, answers it 200, and waits for the ACK.
    pub async fn expect_reinvite(&mut self) -> Result<Received<Request>, AgentError> {
        let invite = self.request(Method::Invite).await?;
        let received = invite.received.clone();
        self.remote_target = uri_text(&value(&received.message.headers, "Contact")?).to_owned();
        let headers = vec![
            Header::Contact(header::Contact::new(self.contact())),
            Header::ContentType(header::ContentType::new("application/sdp")),
        ];
        invite.respond(200, "", headers, offer(self.agent.address()))?;
        self.unconfirmed = Some(invite);
        self.ack().await?;
        Ok(received)
    }

    /// Sends BYE with a falsified route set. `Ok(None)` when there is nothing to falsify: the routes carry no token.
    pub fn forge(&mut self, forgery: &RouteForgery) -> Result<Option<Forged>, AgentError> {
        let routes: Option<Vec<String>> = match forgery {
            RouteForgery::Altered => self.routes.iter().map(|route| altered(route)).collect(),
            RouteForgery::Stripped => self.routes.iter().map(|route| stripped(route)).collect(),
            RouteForgery::Borrowed(routes) => Some(routes.clone()),
        };
        let Some(routes) = routes.filter(|routes| !routes.is_empty()) else { return Ok(None) };
        let (mut request, to) = self.build(Method::Bye, &routes, Vec::new())?;
        request.headers.push(Header::Subject(header::Subject::new(FORGED_SUBJECT)));
        Ok(Some(Forged { transaction: self.start(request, to)? }))
    }

    /// Answers 481 to every request that has come already, and returns the first. ACKs are left out.
    pub fn refuse_arrived(&mut self) -> Result<Option<Received<Request>>, AgentError> {
        let mut first = None;
        while let Some(next) = self.waiting.pop_front().or_else(|| self.requests.try_recv().ok()) {
            if next.received.message.method != Method::Ack {
                next.reply(481)?;
                first.get_or_insert(next.received);
            }
        }
        Ok(first)
    }

    #[allow(clippy::too_many_arguments, reason = "the components of a dialog in RFC 3261 §12.1")]
    fn register(
        agent: &Agent,
        side: Side,
        transport: Transport,
        peer: &rsip::Headers,
        local: String,
        remote: String,
        routes: Vec<String>,
        number: u32,
        remote_number: Option<u32>,
    ) -> Result<Self, AgentError> {
        let call_id = value(peer, "Call-ID")?;
        let remote_target = uri_text(&value(peer, "Contact")?).to_owned();
        let (sender, requests) = mpsc::unbounded_channel();
        let entry = DialogEntry {
            side,
            remote_tag: message::tag(&remote).unwrap_or_default(),
            remote_number,
            requests: sender,
        };
        let local_tag = message::tag(&local).unwrap_or_default();
        agent.state().dialogs.insert((call_id.clone(), local_tag), entry);
        Ok(Self {
            agent: agent.clone(),
            side,
            transport,
            call_id,
            local,
            remote,
            remote_target,
            routes,
            number,
            requests,
            waiting: VecDeque::new(),
            unconfirmed: None,
        })
    }

    /// Waits for a request of this method; others are kept for whoever waits for them.
    async fn request(&mut self, method: Method) -> Result<ServerTransaction, AgentError> {
        let kept = self.waiting.iter().position(|kept| kept.received.message.method == method);
        if let Some(kept) = kept.and_then(|index| self.waiting.remove(index)) {
            return Ok(kept);
        }
        let (patience, end) = (self.agent.settings().patience, self.side);
        loop {
            let what = || format!("{method} at the {}", if end == Side::Caller { "caller" } else { "callee" });
            let next = wait(&mut self.requests, patience, what).await?;
            match next.received.message.method {
                found if found == method => return Ok(next),
                // Another ACK answers a retransmitted 2xx.
                Method::Ack => {}
                _ => self.waiting.push_back(next),
            }
        }
    }

    fn start(&self, request: Request, to: Hop) -> Result<ClientTransaction, AgentError> {
        ClientTransaction::start(&self.agent, request, format!("z9hG4bK{}", unique()), to, self.side)
    }

    /// Sends the ACK of a 2xx: a request of its own on a branch of its own (§13.2.2.4).
    fn acknowledge(&self, invite: &ClientTransaction, number: u32) -> Result<(), AgentError> {
        let (mut ack, to) = self.compose(Method::Ack, number, &self.routes, Vec::new())?;
        super::transaction::push_via(&self.agent, &mut ack, &format!("z9hG4bK{}", unique()), to.transport);
        let raw = ack.to_string();
        invite.acknowledge(raw.clone(), to);
        self.agent.transmit(&raw, to, self.side)
    }

    /// What its Contact says.
    fn contact(&self) -> String {
        let hop = Hop { transport: self.transport, address: self.agent.address() };
        format!("<{}>", message::contact("user", hop))
    }

    fn build(&mut self, method: Method, routes: &[String], body: Vec<u8>) -> Result<(Request, Hop), AgentError> {
        self.number += 1;
        self.compose(method, self.number, routes, body)
    }

    /// §12.2.1.1: Request-URI and Route of the request, and where it goes (§8.1.2).
    fn compose(
        &self,
        method: Method,
        number: u32,
        routes: &[String],
        body: Vec<u8>,
    ) -> Result<(Request, Hop), AgentError> {
        let target = message::uri(&self.remote_target)?;
        let mut carried = routes.to_vec();
        let (uri, next_hop) = match routes.first() {
            None => (target.clone(), target),
            Some(top) => {
                let top = message::uri(uri_text(top))?;
                match message::is_loose(&top) {
                    true => (target, top),
                    false => {
                        carried.remove(0);
                        carried.push(format!("<{}>", self.remote_target));
                        (top.clone(), top)
                    }
                }
            }
        };
        let to = self.agent.resolve(&next_hop)?;
        let mut headers: Vec<Header> =
            carried.into_iter().map(|route| Header::Route(header::Route::new(route))).collect();
        headers.extend([
            Header::MaxForwards(header::MaxForwards::new("70")),
            Header::From(header::From::new(self.local.clone())),
            Header::To(header::To::new(self.remote.clone())),
            Header::CallId(header::CallId::new(self.call_id.clone())),
            Header::CSeq(header::CSeq::new(format!("{number} {method}"))),
        ]);
        if method == Method::Invite {
            headers.push(Header::Contact(header::Contact::new(self.contact())));
            headers.push(Header::ContentType(header::ContentType::new("application/sdp")));
        }
        headers.push(Header::ContentLength(header::ContentLength::new(body.len().to_string())));
        Ok((Request { method, uri, version: rsip::Version::V2, headers: headers.into(), body }, to))
    }
}

impl Drop for Dialog {
    fn drop(&mut self) {
        if let Some(invite) = self.unconfirmed.take() {
            invite.stop();
        }
    }
}

/// A request with a falsified route set that is on its way.
#[derive(Debug)]
pub struct Forged {
    transaction: ClientTransaction,
}

impl Forged {
    /// Its final response; `None` when none comes within `wait`.
    pub async fn outcome(mut self, wait: Duration) -> Option<Received<Response>> {
        tokio::time::timeout(wait, self.transaction.final_response()).await.ok()?.ok()
    }
}

/// An SDP offer or answer of one G.711 stream. No media is sent; port 9 is discard.
pub(super) fn offer(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let host = address.ip();
    format!("v=0\r\no=- 1 1 IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n")
        .into_bytes()
}

/// `route` with the character in the middle of its token changed; `None` when it has none.
///
/// What the token is, only the edge knows: it is taken to be the longest run of token characters in the user part and in the
/// values of the parameters.
fn altered(route: &str) -> Option<String> {
    let uri = uri_text(route);
    let at = route.find(uri)?;
    let (user, rest) = match uri.split_once('@') {
        Some((before, rest)) => (before.split_once(':').map_or(before, |(_, user)| user), rest),
        None => ("", uri),
    };
    let values = rest.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).map(|(_, value)| value);
    let token = std::iter::once(user).chain(values).max_by_key(|text| text.len()).filter(|text| !text.is_empty())?;
    let middle = at + uri.find(token)? + token.len() / 2;
    let mut forged = String::with_capacity(route.len());
    for (index, character) in route.char_indices() {
        forged.push(match character {
            _ if index != middle => character,
            '0' => '1',
            _ => '0',
        });
    }
    Some(forged)
}

/// `route` as host, port and `lr` alone.
fn stripped(route: &str) -> Option<String> {
    let uri = message::uri(uri_text(route)).ok()?;
    // It goes where it came from all the same.
    let bare = match message::transport(&uri) {
        Transport::Udp => format!("<sip:{};lr>", uri.host_with_port),
        other => format!("<sip:{};transport={other};lr>", uri.host_with_port),
    };
    (bare != route).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_altered_in_the_user_part_or_in_a_parameter() {
        assert_eq!(altered("<sip:abcdef@192.0.2.1;lr>").as_deref(), Some("<sip:abc0ef@192.0.2.1;lr>"));
        assert_eq!(altered("<sip:192.0.2.1:5060;lr;t=ab0cd>").as_deref(), Some("<sip:192.0.2.1:5060;lr;t=ab1cd>"));
        assert_eq!(altered("<sip:192.0.2.1:5060;lr>"), None);
    }

    #[test]
    fn a_stripped_route_keeps_host_and_port() {
        assert_eq!(stripped("<sip:tok@192.0.2.1:5060;lr;t=ab>").as_deref(), Some("<sip:192.0.2.1:5060;lr>"));
        assert_eq!(stripped("<sip:192.0.2.1:5060;lr>"), None);
    }
}
