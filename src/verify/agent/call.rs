//! Setting up calls: the INVITE from both ends, CANCEL, and [`Call`] for tests that want a call and no details.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rsip::headers::{self as header, UntypedHeader};
use rsip::{Header, Method, Request, Response};
use tokio::sync::mpsc;

use super::dialog::{Dialog, offer};
use super::message::{self, value, values};
use super::transaction::{ClientTransaction, InviteEvent, ServerTransaction};
use super::{Agent, AgentError, Hop, Received, Side, instead, unique, wait};
use crate::spec::Transport;

/// A call that is up at both ends.
#[derive(Debug)]
pub struct Call {
    /// The caller's end.
    pub caller: Dialog,
    /// The callee's end.
    pub callee: Dialog,
}

/// Which end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that sent the INVITE.
    Caller,
    /// The one that answered it.
    Callee,
}

impl Call {
    /// Calls from `caller` through `invite.edge`, rings and answers at whichever of `callees` the edge chooses, and acknowledges. The
    /// 180 may get lost; [`RingingCall`] waits for it.
    pub async fn place(caller: &Agent, callees: &[Agent], invite: &Invite) -> Result<Self, AgentError> {
        RingingCall::begin(caller, callees, invite).await?.answer().await
    }

    /// BYE from `end`: it must arrive at the other end, and its 200 must come back.
    pub async fn hang_up(self, end: End) -> Result<(), AgentError> {
        let Self { mut caller, mut callee } = self;
        let (from, to) = match end {
            End::Caller => (&mut caller, &mut callee),
            End::Callee => (&mut callee, &mut caller),
        };
        let (sent, arrived) = tokio::join!(from.bye(), to.expect_bye());
        arrived?;
        sent.map(|_| ())
    }
}

/// A call that rings: 180 has come back to the caller.
#[derive(Debug)]
pub struct RingingCall {
    /// The caller's end.
    pub caller: Dialling,
    /// The callee's end.
    pub callee: Ringing,
}

impl RingingCall {
    /// Calls from `caller` through `invite.edge` and rings at whichever of `callees` the edge chooses.
    pub async fn place(caller: &Agent, callees: &[Agent], invite: &Invite) -> Result<Self, AgentError> {
        let mut call = Self::begin(caller, callees, invite).await?;
        call.caller.provisional(180).await?;
        Ok(call)
    }

    /// INVITE to the callee, and its 180 on the way.
    async fn begin(caller: &Agent, callees: &[Agent], invite: &Invite) -> Result<Self, AgentError> {
        let mut expected = Expected::at(callees, &invite.call_id);
        let mut caller = Dialling::start(caller, invite)?;
        let callee = caller.reach(&mut expected).await?;
        callee.ring()?;
        Ok(Self { caller, callee })
    }

    /// 200, ACK.
    pub async fn answer(self) -> Result<Call, AgentError> {
        let Self { mut caller, callee } = self;
        let mut callee = callee.answer()?;
        caller.answered().await?;
        let caller = caller.confirm()?;
        callee.ack().await?;
        Ok(Call { caller, callee })
    }

    /// CANCEL from the caller: 200 to it, CANCEL at the callee, 487 back, ACK to the callee.
    pub async fn cancel(self) -> Result<(), AgentError> {
        let Self { mut caller, mut callee } = self;
        let (sent, arrived) = tokio::join!(caller.cancel(), callee.cancelled());
        sent?;
        arrived?;
        let rejected = caller.rejected().await?;
        match rejected.message.status_code.code() {
            487 => callee.acknowledged().await,
            code => Err(AgentError::Instead {
                what: "487 to the cancelled INVITE".to_owned(),
                came: rejected.message.status_code.to_string(),
                code: Some(code),
            }),
        }
    }
}

/// What an INVITE outside of a dialog says.
#[derive(Debug, Clone)]
pub struct Invite {
    /// Where it is sent; also host and port of the Request-URI.
    pub edge: SocketAddr,
    /// How it is sent; UDP unless set.
    pub transport: Transport,
    /// User part of the Request-URI.
    pub number: String,
    /// Call-ID; unique unless set.
    pub call_id: String,
    /// Max-Forwards, 70 unless set.
    pub max_forwards: u8,
}

impl Invite {
    /// An INVITE to `number` by way of `edge`.
    pub fn new(edge: SocketAddr, number: &str) -> Self {
        Self { edge, transport: Transport::Udp, number: number.to_owned(), call_id: unique(), max_forwards: 70 }
    }
}

/// The caller's end of a call that has not been answered.
#[derive(Debug)]
pub struct Dialling {
    transaction: ClientTransaction,
    seen: Vec<Received<Response>>,
}

impl Dialling {
    /// Sends the INVITE.
    pub fn start(agent: &Agent, invite: &Invite) -> Result<Self, AgentError> {
        let edge = Hop { transport: invite.transport, address: invite.edge };
        let uri = message::uri(&message::contact(&invite.number, edge))?;
        let contact = message::contact("caller", Hop { address: agent.address(), ..edge });
        let host = agent.address().ip();
        let body = offer(agent.address());
        let headers: Vec<Header> = vec![
            Header::MaxForwards(header::MaxForwards::new(invite.max_forwards.to_string())),
            Header::From(header::From::new(format!("<sip:smoke-call@{host}>;tag={}", unique()))),
            Header::To(header::To::new(format!("<{uri}>"))),
            Header::CallId(header::CallId::new(invite.call_id.clone())),
            Header::CSeq(header::CSeq::new("1 INVITE")),
            Header::Contact(header::Contact::new(format!("<{contact}>"))),
            Header::UserAgent(header::UserAgent::new("sipedge-verify")),
            Header::ContentType(header::ContentType::new("application/sdp")),
            Header::ContentLength(header::ContentLength::new(body.len().to_string())),
        ];
        let request =
            Request { method: Method::Invite, uri, version: rsip::Version::V2, headers: headers.into(), body };
        let branch = format!("z9hG4bK{}", unique());
        let transaction = ClientTransaction::start(agent, request, branch, edge, Side::Caller)?;
        Ok(Self { transaction, seen: Vec::new() })
    }

    /// The same INVITE again with credentials, after a challenge (RFC 3261 §22.2): its Call-ID and From, a new branch, the next CSeq.
    pub fn authorized(&self, authorization: String) -> Result<Self, AgentError> {
        let old = &self.transaction.request;
        let (number, _) = message::cseq(&old.headers)?;
        let kept = |header: &&Header| !matches!(header, Header::Via(_) | Header::CSeq(_) | Header::Authorization(_));
        let mut headers: Vec<Header> = old.headers.iter().filter(kept).cloned().collect();
        headers.push(Header::CSeq(header::CSeq::new(format!("{} INVITE", number + 1))));
        headers.push(Header::Authorization(header::Authorization::new(authorization)));
        let request = Request { headers: headers.into(), ..old.clone() };
        let branch = format!("z9hG4bK{}", unique());
        let (agent, to) = (&self.transaction.agent, self.transaction.to);
        let transaction = ClientTransaction::start(agent, request, branch, to, Side::Caller)?;
        Ok(Self { transaction, seen: Vec::new() })
    }

    /// The Request-URI.
    pub fn uri(&self) -> String {
        self.transaction.request.uri.to_string()
    }

    /// When the INVITE was sent.
    pub fn sent(&self) -> Instant {
        self.transaction.sent
    }

    /// Waits until the INVITE has arrived, or was refused.
    pub async fn reach(&mut self, expected: &mut Expected) -> Result<Ringing, AgentError> {
        let patience = self.transaction.agent.settings().patience;
        let refused = async {
            loop {
                if let Some(refused) = self.seen.iter().find(|response| response.message.status_code.code() >= 300) {
                    return instead("the INVITE at the callee", refused);
                }
                match self.transaction.response(String::new).await {
                    Ok(received) => self.seen.push(received),
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            biased;
            invite = expected.invite(patience) => invite,
            error = refused => match error {
                AgentError::Instead { .. } => Err(error),
                // The transaction is silent; the expectation says what did not come.
                _ => Err(AgentError::Missing { what: "the INVITE at the callee".to_owned(), waited: patience }),
            },
        }
    }

    /// Waits for the provisional response `code`. Others may come before it, a final one may not.
    pub async fn provisional(&mut self, code: u16) -> Result<Received<Response>, AgentError> {
        let what = move || format!("the {code} response to the INVITE");
        self.find(what, |found| found == code).await
    }

    /// Waits for a 2xx.
    pub async fn answered(&mut self) -> Result<Received<Response>, AgentError> {
        self.find(|| "the 200 response to the INVITE".to_owned(), |code| (200..300).contains(&code)).await
    }

    /// Waits for a final response other than 2xx; it is acknowledged on the same branch.
    pub async fn rejected(&mut self) -> Result<Received<Response>, AgentError> {
        self.find(|| "the final response to the INVITE".to_owned(), |code| code >= 300).await
    }

    /// Like [`Dialling::rejected`], but takes silence of this length for an answer: `None`.
    pub async fn rejected_within(&mut self, wait: Duration) -> Result<Option<Received<Response>>, AgentError> {
        match tokio::time::timeout(wait, self.rejected()).await {
            Ok(Err(AgentError::Missing { .. })) | Err(_) => Ok(None),
            Ok(result) => result.map(Some),
        }
    }

    /// Sends the ACK of the 2xx by its route set, and takes up the dialog.
    pub fn confirm(self) -> Result<Dialog, AgentError> {
        let answer = self.seen.iter().find(|response| (200..300).contains(&response.message.status_code.code()));
        let Some(answer) = answer else {
            return Err(AgentError::Missing {
                what: "the 200 response to the INVITE".to_owned(),
                waited: Duration::ZERO,
            });
        };
        Dialog::of_caller(&self.transaction, &answer.message)
    }

    /// Waits for a provisional response (§9.1), sends CANCEL on the INVITE's branch, and waits for its 200.
    pub async fn cancel(&mut self) -> Result<Received<Response>, AgentError> {
        self.find(|| "a provisional response, without which there is no CANCEL".to_owned(), |code| code < 200).await?;
        let invite = &self.transaction.request;
        let (number, _) = message::cseq(&invite.headers)?;
        let mut headers: Vec<Header> = vec![Header::MaxForwards(header::MaxForwards::new("70"))];
        headers.extend(
            invite
                .headers
                .iter()
                .filter(|header| matches!(header, Header::From(_) | Header::To(_) | Header::CallId(_)))
                .cloned(),
        );
        headers.push(Header::CSeq(header::CSeq::new(format!("{number} CANCEL"))));
        headers.push(Header::ContentLength(header::ContentLength::new("0")));
        let request = Request {
            method: Method::Cancel,
            uri: invite.uri.clone(),
            version: rsip::Version::V2,
            headers: headers.into(),
            body: Vec::new(),
        };
        let (agent, branch) = (&self.transaction.agent, self.transaction.branch().to_owned());
        let mut cancel = ClientTransaction::start(agent, request, branch, self.transaction.to, Side::Caller)?;
        let received = cancel.final_response().await?;
        match received.message.status_code.code() {
            200..300 => Ok(received),
            _ => Err(instead("the 200 response to CANCEL", &received)),
        }
    }

    async fn find(
        &mut self,
        what: impl Fn() -> String,
        wanted: impl Fn(u16) -> bool,
    ) -> Result<Received<Response>, AgentError> {
        loop {
            if let Some(found) = self.seen.iter().find(|response| wanted(response.message.status_code.code())) {
                return Ok(found.clone());
            }
            if let Some(last) = self.seen.iter().find(|response| response.message.status_code.code() >= 200) {
                return Err(instead(&what(), last));
            }
            let received = self.transaction.response(&what).await?;
            self.seen.push(received);
        }
    }
}

/// A callee's readiness for the INVITE of one Call-ID, at all addresses where it may arrive. Any other INVITE gets 480.
#[derive(Debug)]
pub struct Expected {
    agents: Vec<Agent>,
    call_id: String,
    calls: mpsc::UnboundedReceiver<Ringing>,
}

impl Expected {
    /// To be called before the INVITE is sent.
    pub fn at(agents: &[Agent], call_id: &str) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        for agent in agents {
            agent.state().expected.insert(call_id.to_owned(), sender.clone());
        }
        Self { agents: agents.to_vec(), call_id: call_id.to_owned(), calls }
    }

    /// The INVITE, when it comes within `wait`.
    pub async fn invite(&mut self, wait_for: Duration) -> Result<Ringing, AgentError> {
        wait(&mut self.calls, wait_for, || "the INVITE at the callee".to_owned()).await
    }

    /// The INVITE, if it has come already.
    pub fn arrived(&mut self) -> Option<Ringing> {
        self.calls.try_recv().ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        for agent in &self.agents {
            agent.state().expected.remove(&self.call_id);
        }
    }
}

/// The callee's end of a call that has not been answered.
#[derive(Debug)]
pub struct Ringing {
    transaction: ServerTransaction,
    events: mpsc::UnboundedReceiver<InviteEvent>,
    local_tag: String,
}

impl Ringing {
    pub(super) fn new(
        transaction: ServerTransaction,
        events: mpsc::UnboundedReceiver<InviteEvent>,
    ) -> Result<Self, AgentError> {
        for name in ["Contact", "From", "To", "Call-ID"] {
            value(&transaction.received.message.headers, name)?;
        }
        Ok(Self { transaction, events, local_tag: unique() })
    }

    /// The INVITE.
    pub fn invite(&self) -> &Received<Request> {
        &self.transaction.received
    }

    /// The user agent where it arrived.
    pub fn agent(&self) -> &Agent {
        &self.transaction.agent
    }

    /// Sends 180.
    pub fn ring(&self) -> Result<(), AgentError> {
        self.transaction.respond(180, &self.local_tag, self.dialog_headers(), Vec::new())
    }

    /// Sends 200, again and again until its ACK comes.
    pub fn answer(self) -> Result<Dialog, AgentError> {
        let mut headers = self.dialog_headers();
        headers.push(Header::ContentType(header::ContentType::new("application/sdp")));
        let (local_tag, body) = (self.local_tag.clone(), offer(self.agent().address()));
        // Registered before the 200 leaves, so that the ACK finds it.
        let dialog = Dialog::of_callee(self.transaction, &local_tag)?;
        dialog.answer_invite(&local_tag, headers, body)?;
        Ok(dialog)
    }

    /// Sends a final response other than 2xx.
    pub fn reject(&self, code: u16) -> Result<(), AgentError> {
        self.transaction.respond(code, &self.local_tag, Vec::new(), Vec::new())
    }

    /// Waits for CANCEL, which gets 200, and answers the INVITE with 487.
    pub async fn cancelled(&mut self) -> Result<(), AgentError> {
        self.event(InviteEvent::Cancelled, "CANCEL at the callee").await?;
        self.reject(487)
    }

    /// Waits for the ACK of a final response other than 2xx.
    pub async fn acknowledged(&mut self) -> Result<(), AgentError> {
        self.event(InviteEvent::Acked, "the ACK of the callee's final response").await
    }

    async fn event(&mut self, wanted: InviteEvent, what: &str) -> Result<(), AgentError> {
        let patience = self.transaction.agent.settings().patience;
        while wait(&mut self.events, patience, || what.to_owned()).await? != wanted {}
        Ok(())
    }

    /// What a response carries that creates a dialog (§12.1.1).
    fn dialog_headers(&self) -> Vec<Header> {
        let routes = values(&self.invite().message.headers, "Record-Route");
        let mut headers: Vec<Header> =
            routes.into_iter().map(|route| Header::RecordRoute(header::RecordRoute::new(route))).collect();
        let hop = Hop { transport: self.invite().transport, address: self.agent().address() };
        headers.push(Header::Contact(header::Contact::new(format!("<{}>", message::contact("callee", hop)))));
        headers
    }
}
