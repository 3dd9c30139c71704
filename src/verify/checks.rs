//! The checks of one route: six calls at once, each of which proves what the others cannot.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsip::Request;
use tokio::sync::oneshot;

use super::Addresses;
use super::agent::{
    Agent, AgentError, Call, Dialling, Dialog, End, Expected, Invite, Received, Ringing, RingingCall, RouteForgery,
};
use super::cause::Clues;
use super::pace::Pace;
use super::report::{CallReport, Check, LadderMessage};
use super::sheet::{Failure, Sheet};
use super::trace::Trace;
use crate::plan::VerifyCall;
use crate::spec::Transport;

/// How long nothing has to come until silence is believed. The paths that are tried take single milliseconds.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// How long an answer to a forged request is waited for when the edge is not set to silence.
const REFUSAL: Duration = Duration::from_secs(1);

pub(super) const REACHED: &str = "reached";
const REQUEST_URI: &str = "request-uri-rewritten";
const FORWARDED_FROM: &str = "forwarded-from";
const VIA: &str = "via-reply-path";
pub(super) const PROVISIONAL: &str = "provisional";
pub(super) const ANSWERED: &str = "answered";
pub(super) const SET_UP_DELAY: &str = "set-up-delay";
const ACK: &str = "ack-end-to-end";
pub(super) const REINVITE: &str = "reinvite";
const FORGED: &str = "forged-refused";
pub(super) const BYE_CALLER: &str = "bye-from-caller";
pub(super) const BYE_CALLEE: &str = "bye-from-callee";
const SAME_CARRIER: &str = "same-carrier";
const CANCEL: &str = "cancel";
const MAX_FORWARDS: &str = "max-forwards";
pub(super) const STRANGER: &str = "stranger-refused";

/// The parts of the smoke call, as the ladder names them.
pub(super) const MAIN_PART: &str = "main call";
const BYE_PART: &str = "BYE from the callee";
const SAME_PART: &str = "source and destination in one";
const CANCEL_PART: &str = "CANCEL";
const HOPS_PART: &str = "Max-Forwards";
const STRANGER_PART: &str = "stranger";

/// Every check with its title and its part, in the order of the report.
const CHECKS: [(&str, &str, &str); 16] = [
    (REACHED, "INVITE reaches the destination", MAIN_PART),
    (REQUEST_URI, "Request-URI: user kept, host rewritten", MAIN_PART),
    (FORWARDED_FROM, "INVITE comes from an address to whitelist", MAIN_PART),
    (VIA, "Via has the public address and rport", MAIN_PART),
    (PROVISIONAL, "100 and 180 come back to the caller", MAIN_PART),
    (ANSWERED, "200 comes back by the path of the INVITE", MAIN_PART),
    (SET_UP_DELAY, "set-up delay within its limit", MAIN_PART),
    (ACK, "ACK end to end through the edge", MAIN_PART),
    (REINVITE, "re-INVITE and its ACK through the edge", MAIN_PART),
    (FORGED, "requests with a forged route refused", MAIN_PART),
    (BYE_CALLER, "BYE from the caller, 200 back", MAIN_PART),
    (BYE_CALLEE, "BYE from the callee, 200 back", BYE_PART),
    (SAME_CARRIER, "call from the destination's own address", SAME_PART),
    (CANCEL, "CANCEL reaches the callee, 487 comes back", CANCEL_PART),
    (MAX_FORWARDS, "Max-Forwards 0 answered 483", HOPS_PART),
    (STRANGER, "stranger refused", STRANGER_PART),
];

/// The checks of a finished call, in the order of the report. `same_carrier` says whether the destination may call, too.
pub(super) fn conclude(sheet: &Sheet, same_carrier: bool) -> Vec<Check> {
    let checks = CHECKS.iter().filter(|(id, ..)| same_carrier || *id != SAME_CARRIER);
    checks.map(|(id, title, part)| sheet.line(id, title, part)).collect()
}

/// One route with its user agents.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) call: VerifyCall,
    pub(super) addresses: Addresses,
    /// What the caller speaks.
    pub(super) transport: Transport,
    pub(super) names: BTreeMap<String, IpAddr>,
    /// Whether the edge is set to refuse in silence.
    pub(super) silent: bool,
    pub(super) max_setup: Duration,
    pub(super) caller: Agent,
    pub(super) callees: Vec<Agent>,
    /// The callees that the source trunk admits as callers: the carrier is source and destination.
    pub(super) both: Vec<Agent>,
    pub(super) stranger: Agent,
    pub(super) trace: Trace,
    pub(super) pace: Arc<Pace>,
    pub(super) sheet: Sheet,
}

impl Scene {
    fn new_invite(&self) -> Invite {
        Invite { transport: self.transport, ..Invite::new(self.addresses.ingress, &self.call.number) }
    }

    /// Has each callee that may call send the edge an INVITE which goes no further, and waits for the answers. Its flow to the edge is
    /// then older than any that the edge opens to it, as with a carrier that calls both ways. In the other order NAT gives the colliding
    /// flow another port, and an edge that sends requests from its ingress port would pass by luck.
    pub(super) async fn open_flows(&self) {
        let invite = || Invite { max_forwards: 0, ..self.new_invite() };
        let sent: Vec<_> = self.both.iter().filter_map(|agent| Dialling::start(agent, &invite()).ok()).collect();
        let deadline = Instant::now() + SILENCE;
        for mut caller in sent {
            // Whatever comes: the checks say what is wrong with an edge that does not answer.
            let _ = caller.rejected_within(deadline.saturating_duration_since(Instant::now())).await;
        }
    }

    pub(super) async fn play(self) -> CallReport {
        let [main, second, same, cancelled, hops, stranger] = std::array::from_fn(|_| self.new_invite());
        let hops = Invite { max_forwards: 0, ..hops };
        let parts = [
            (MAIN_PART, main.call_id.clone()),
            (BYE_PART, second.call_id.clone()),
            (SAME_PART, same.call_id.clone()),
            (CANCEL_PART, cancelled.call_id.clone()),
            (HOPS_PART, hops.call_id.clone()),
            (STRANGER_PART, stranger.call_id.clone()),
        ];
        let (lend, borrow) = oneshot::channel();
        // The second call goes first, since the main call borrows its route: with a limit of one call they run in this order.
        tokio::join!(
            self.bye_from_callee(second, lend),
            self.main_call(main, borrow),
            self.same_carrier(same),
            self.cancel(cancelled),
            self.max_forwards(hops),
            self.stranger(stranger),
        );
        let ladder = parts
            .iter()
            .flat_map(|(part, call_id)| {
                self.trace.of(call_id).into_iter().map(|message| LadderMessage::new(part, message))
            })
            .collect();
        CallReport::new(&self.call, &self.addresses, conclude(&self.sheet, !self.both.is_empty()), ladder)
    }

    fn clues(&self) -> Clues<'_> {
        Clues { addresses: &self.addresses, names: &self.names }
    }

    /// One call with everything in it, hung up by the caller. Returns early when there is nothing left to try.
    async fn main_call(&self, invite: Invite, borrowed: oneshot::Receiver<Vec<String>>) -> Option<()> {
        let _permit = self.pace.enter().await;
        let sheet = &self.sheet;
        let mut expected = Expected::at(&self.callees, &invite.call_id);
        let (mut caller, ringing) = sheet.check(REACHED, self.reach(&invite, &mut expected)).await?;
        let arrived = ringing.invite().clone();
        let forwarding = arrived.at.saturating_duration_since(caller.sent());
        sheet.judge(REQUEST_URI, forwarding, self.request_uri(&arrived.message));
        sheet.judge(FORWARDED_FROM, forwarding, self.source("the INVITE", arrived.source.ip()));
        sheet.judge(VIA, Duration::ZERO, self.via(&arrived.message));

        sheet.check(PROVISIONAL, self.provisional(&mut caller, &ringing)).await;
        let picked_up = Instant::now();
        let (mut callee, answered_at) = sheet.check(ANSWERED, self.answered(&mut caller, ringing)).await?;
        let total = answered_at.saturating_duration_since(caller.sent());
        let rang = picked_up.saturating_duration_since(arrived.at);
        sheet.judge(SET_UP_DELAY, total, self.set_up_delay(total.saturating_sub(rang)));

        let mut caller = sheet.check(ACK, self.ack(caller, &mut callee, &arrived.message)).await?;
        sheet.check(REINVITE, self.reinvite(&mut caller, &mut callee)).await;
        sheet.check(FORGED, self.forged(&mut caller, &mut callee, borrowed)).await;
        sheet.check(BYE_CALLER, self.bye(&mut caller, &mut callee, "the caller")).await
    }

    async fn reach(&self, invite: &Invite, expected: &mut Expected) -> Result<(Dialling, Ringing), Failure> {
        let clues = self.clues();
        let explain = |error: AgentError| {
            let what = format!("the INVITE at {}", self.callee_words());
            Failure::new(what, came(&error), clues.unreached(&error, self.caller.address().ip()))
        };
        let mut caller = Dialling::start(&self.caller, invite).map_err(explain)?;
        let ringing = caller.reach(expected).await.map_err(explain)?;
        Ok((caller, ringing))
    }

    fn request_uri(&self, invite: &Request) -> Result<(), Failure> {
        let hosts = &self.call.request_uri_hosts;
        let wanted = format!("sip:{}@{}", self.call.number, hosts.join(" or "));
        let user = invite.uri.user().unwrap_or_default();
        let host = invite.uri.host_with_port.to_string();
        if user == self.call.number && hosts.iter().any(|wanted| wanted.eq_ignore_ascii_case(&host)) {
            return Ok(());
        }
        let cause = match user == self.call.number {
            true => "the destination trunk's domain or target differs from the one that this plan has",
            false => "the edge changed the called number, which it must pass on as it is",
        };
        Err(Failure::new(wanted, invite.uri.to_string(), cause))
    }

    fn source(&self, what: &str, source: IpAddr) -> Result<(), Failure> {
        let clues = self.clues();
        clues.egress(source).map_err(|cause| {
            Failure::new(format!("{what} from {}", clues.egress_words()), format!("it came from {source}"), cause)
        })
    }

    fn via(&self, invite: &Request) -> Result<(), Failure> {
        let came = || super::agent::value(&invite.headers, "Via").unwrap_or_else(|error| error.to_string());
        let wanted = || format!("a top Via of {} with rport", self.addresses.ingress.ip());
        self.clues().via(invite).map_or(Ok(()), |cause| Err(Failure::new(wanted(), came(), cause)))
    }

    async fn provisional(&self, caller: &mut Dialling, ringing: &Ringing) -> Result<(), Failure> {
        let invite = &ringing.invite().message;
        let explain = |error: AgentError, cause: String| {
            Failure::new("100 from the edge and 180 from the callee", came(&error), cause)
        };
        caller.provisional(100).await.map_err(|error| {
            explain(
                error,
                "the edge does not answer 100 at once: the caller's carrier sends the INVITE again".to_owned(),
            )
        })?;
        ringing.ring().map_err(|error| explain(error, self.clues().response_lost(invite)))?;
        caller.provisional(180).await.map_err(|error| explain(error, self.clues().response_lost(invite)))?;
        Ok(())
    }

    async fn answered(&self, caller: &mut Dialling, ringing: Ringing) -> Result<(Dialog, Instant), Failure> {
        let invite = ringing.invite().message.clone();
        let ingress = self.addresses.ingress;
        let explain = |error: AgentError| {
            Failure::new(format!("200 at the caller from {ingress}"), came(&error), self.clues().response_lost(&invite))
        };
        let callee = ringing.answer().map_err(explain)?;
        let answer = caller.answered().await.map_err(explain)?;
        match answer.source == ingress {
            true => Ok((callee, answer.at)),
            false => Err(Failure::new(
                format!("200 at the caller from {ingress}"),
                format!("it came from {}", answer.source),
                "responses leave by another socket than the one that the INVITE came in by: the caller's NAT or firewall drops them",
            )),
        }
    }

    fn set_up_delay(&self, delay: Duration) -> Result<(), Failure> {
        if delay <= self.max_setup {
            return Ok(());
        }
        let words = |duration: Duration| format!("{} ms", duration.as_millis());
        Err(Failure::new(
            format!("at most {}, without the ringing time", words(self.max_setup)),
            words(delay),
            "the edge is overloaded, waits for a name server, or needed a retransmission (the ladder shows it)",
        ))
    }

    async fn ack(&self, caller: Dialling, callee: &mut Dialog, invite: &Request) -> Result<Dialog, Failure> {
        let clues = self.clues();
        let expected = "the ACK at the callee, from the edge";
        let lost = || "the edge does not forward the ACK of a 2xx, or refuses the token in its Route".to_owned();
        let explain =
            |error: AgentError| Failure::new(expected, came(&error), clues.routes_of(invite).unwrap_or_else(lost));
        let caller = caller.confirm().map_err(explain)?;
        let ack = callee.ack().await.map_err(explain)?;
        match clues.egress(ack.source.ip()) {
            Ok(()) => Ok(caller),
            Err(cause) => {
                let cause = clues.routes_of(invite).unwrap_or(cause);
                Err(Failure::new(expected, format!("it came from {}", ack.source), cause))
            }
        }
    }

    async fn reinvite(&self, caller: &mut Dialog, callee: &mut Dialog) -> Result<(), Failure> {
        let routes = caller.routes().to_vec();
        let (sent, arrived) = tokio::join!(caller.reinvite(), callee.expect_reinvite());
        let explain = |error: AgentError| {
            let lost = || "the edge does not relay INVITE within a dialog".to_owned();
            Failure::new(
                "the re-INVITE at the callee, its 200 and ACK",
                came(&error),
                self.clues().routes(&routes).unwrap_or_else(lost),
            )
        };
        let arrived = arrived.map_err(explain)?;
        sent.map_err(explain)?;
        self.source("the re-INVITE", arrived.source.ip())
    }

    /// Requests whose route the edge never issued for this call: an edge that relays them is an open relay.
    async fn forged(
        &self,
        caller: &mut Dialog,
        callee: &mut Dialog,
        borrowed: oneshot::Receiver<Vec<String>>,
    ) -> Result<(), Failure> {
        const EXPECTED: &str =
            "BYE with an altered token, with none, and with another call's: refused, and none at the callee";
        let explain =
            |error: AgentError| Failure::new(EXPECTED, came(&error), "the route set of the call cannot be used");
        let patience = self.caller.settings().patience;
        let Ok(Ok(other)) = tokio::time::timeout(patience, borrowed).await else {
            let cause = "the call whose token is borrowed was not set up: see bye-from-callee";
            return Err(Failure::new(EXPECTED, "another call's token could not be tried", cause));
        };
        let mut trials = Vec::new();
        for (what, forgery) in [
            ("an altered token", RouteForgery::Altered),
            ("no token", RouteForgery::Stripped),
            ("another call's token", RouteForgery::Borrowed(other)),
        ] {
            let Some(forged) = caller.forge(&forgery).map_err(explain)? else {
                let cause = "the edge signs nothing: whoever knows its address can relay requests through it";
                return Err(Failure::new(EXPECTED, "the Record-Route carries no token", cause));
            };
            trials.push((what, forged));
        }
        let wait = if self.silent { SILENCE } else { REFUSAL };
        let mut outcomes = Vec::new();
        let deadline = Instant::now() + wait;
        for (what, forged) in trials {
            let rest = deadline.saturating_duration_since(Instant::now());
            outcomes.push((what, forged.outcome(rest).await));
        }
        // What was relayed by mistake has arrived by now: it is not slower than the edge's own answer.
        if !self.silent {
            tokio::time::sleep(SILENCE / 3).await;
        }
        if let Some(relayed) = callee.refuse_arrived().map_err(explain)? {
            let came = format!(
                "the callee got {} from {}",
                super::agent::start_line(&relayed.message.to_string()),
                relayed.source
            );
            let cause = "the edge does not check the token in Route against key and call: it is an open relay";
            return Err(Failure::new(EXPECTED, came, cause));
        }
        for (what, outcome) in outcomes {
            let (came, cause) = match outcome.map(|response| response.message.status_code) {
                Some(status) if status.code() >= 300 => continue,
                None if self.silent => continue,
                Some(status) => {
                    (format!("{status} to the BYE with {what}"), "the edge answers it as if the call were its own")
                }
                None => (
                    format!("no answer to the BYE with {what}"),
                    "the edge drops it in silence though `refuse` says answer, or has sent it elsewhere",
                ),
            };
            return Err(Failure::new(EXPECTED, came, cause));
        }
        Ok(())
    }

    /// BYE from `from` to `to`, and its 200.
    async fn bye(&self, from: &mut Dialog, to: &mut Dialog, who: &str) -> Result<(), Failure> {
        let routes = from.routes().to_vec();
        let (sent, arrived) = tokio::join!(from.bye(), to.expect_bye());
        let explain = |error: AgentError| {
            let lost = || format!("the edge does not relay the BYE of {who}, or refuses the token in its Route");
            Failure::new(
                "BYE at the other end, 200 back",
                came(&error),
                self.clues().routes(&routes).unwrap_or_else(lost),
            )
        };
        // When the BYE was refused, that says more than its absence at the other end.
        if let Err(error @ AgentError::Instead { .. }) = sent {
            return Err(explain(error));
        }
        let arrived: Received<Request> = arrived.map_err(explain)?;
        sent.map_err(|error| {
            let cause = "the BYE arrived, and its 200 got lost between the edge and who sent the BYE";
            Failure::new("BYE at the other end, 200 back", came(&error), cause)
        })?;
        // By the connection that the caller opened: no packet filter is in its way.
        if self.transport != Transport::Udp && arrived.source == self.addresses.ingress {
            return Ok(());
        }
        self.source("the BYE", arrived.source.ip())
    }

    async fn bye_from_callee(&self, invite: Invite, lend: oneshot::Sender<Vec<String>>) -> Option<()> {
        let _permit = self.pace.enter().await;
        let trial = async {
            let Call { mut caller, mut callee } =
                Call::place(&self.caller, &self.callees, &invite).await.map_err(|error| {
                    Failure::new(
                        "a second call, for the callee to end",
                        came(&error),
                        "the checks of the main call show the cause",
                    )
                })?;
            let _ = lend.send(caller.routes().to_vec());
            self.bye(&mut callee, &mut caller, "the callee").await
        };
        self.sheet.check(BYE_CALLEE, trial).await
    }

    /// A call from the address where it arrives: both flows have the same ends but for the edge's ports, so that an edge which sends
    /// requests from its ingress port has them taken for responses by NAT, and they leave from the ingress address.
    async fn same_carrier(&self, invite: Invite) -> Option<()> {
        let both = self.both.first()?;
        let _permit = self.pace.enter().await;
        let trial = async {
            let explain = |error: AgentError| {
                let cause = match error {
                    AgentError::Instead { .. } => self.clues().unreached(&error, both.address().ip()),
                    _ => "the flows of the two directions collide (requests have to leave by the egress port), or what the main call \
                          fails by"
                        .to_owned(),
                };
                Failure::new("a call that the carrier makes to itself", came(&error), cause)
            };
            let ringing = RingingCall::place(both, &self.callees, &invite).await.map_err(explain)?;
            let source = ringing.callee.invite().source.ip();
            let call = ringing.answer().await.map_err(explain)?;
            call.hang_up(End::Caller).await.map_err(explain)?;
            self.source("the INVITE", source)
        };
        self.sheet.check(SAME_CARRIER, trial).await
    }

    async fn cancel(&self, invite: Invite) -> Option<()> {
        let _permit = self.pace.enter().await;
        let trial = async {
            let expected = "200 to CANCEL, CANCEL at the callee, 487 at the caller, its ACK at the callee";
            let ringing = RingingCall::place(&self.caller, &self.callees, &invite).await.map_err(|error| {
                Failure::new("a call that rings", came(&error), "the checks of the main call show the cause")
            })?;
            let invite = ringing.callee.invite().message.clone();
            ringing.cancel().await.map_err(|error| {
                let cause = match &error {
                    AgentError::Missing { what, .. } if what.contains("response to CANCEL") => {
                        "the edge does not answer CANCEL by itself, which it must (RFC 3261 §16.10)".to_owned()
                    }
                    AgentError::Missing { what, .. } if what.contains("CANCEL at") => {
                        "the edge does not send CANCEL on, or on another branch than the INVITE's".to_owned()
                    }
                    AgentError::Missing { what, .. } if what.contains("ACK") => {
                        "the edge does not acknowledge the callee's 487, or on another branch than the INVITE's"
                            .to_owned()
                    }
                    _ => self.clues().response_lost(&invite),
                };
                Failure::new(expected, came(&error), cause)
            })
        };
        self.sheet.check(CANCEL, trial).await
    }

    async fn max_forwards(&self, invite: Invite) -> Option<()> {
        let _permit = self.pace.enter().await;
        let trial = async {
            let expected = "483 from the edge, and no INVITE at the callee";
            let loops = "the edge does not look at Max-Forwards: a loop through it never ends (RFC 3261 §16.3)";
            match self.intrude(&self.caller, &invite).await {
                Err(AgentError::Instead { code: Some(483), .. }) => Ok(()),
                Err(error) => Err(Failure::new(expected, came(&error), "the edge answers something else, or nothing")),
                Ok(()) => Err(Failure::new(expected, "the INVITE arrived at the callee", loops)),
            }
        };
        self.sheet.check(MAX_FORWARDS, trial).await
    }

    async fn stranger(&self, invite: Invite) -> Option<()> {
        let trial = async {
            let stranger = self.stranger.address();
            let expected = match self.silent {
                true => format!("no answer to {stranger}, and no INVITE at the callee"),
                false => format!("403 to {stranger}, and no INVITE at the callee"),
            };
            let attempt = self.intrude(&self.stranger, &invite);
            let outcome = match self.silent {
                true => tokio::time::timeout(SILENCE, attempt).await.ok(),
                false => Some(attempt.await),
            };
            match outcome {
                None => Ok(()),
                Some(Err(AgentError::Instead { code: Some(403), .. })) if !self.silent => Ok(()),
                Some(Err(AgentError::Missing { .. })) if self.silent => Ok(()),
                Some(Ok(())) => Err(Failure::new(
                    expected,
                    "the INVITE arrived at the callee",
                    format!(
                        "the edge takes calls from {stranger}, which is in no carrier's range: narrow the trunks' `from`"
                    ),
                )),
                Some(Err(error)) => {
                    let cause = "the edge does not do what `refuse` in its configuration says";
                    Err(Failure::new(expected, came(&error), cause))
                }
            }
        };
        self.sheet.check(STRANGER, trial).await
    }

    /// Sends an INVITE that must not arrive. `Ok` when it did, else what came in its place.
    async fn intrude(&self, agent: &Agent, invite: &Invite) -> Result<(), AgentError> {
        let mut expected = Expected::at(&self.callees, &invite.call_id);
        let mut caller = Dialling::start(agent, invite)?;
        let error = match caller.reach(&mut expected).await {
            Ok(ringing) => return ringing.reject(480),
            Err(error) => error,
        };
        // An edge that both refuses the INVITE and sends it on does so at once.
        match expected.invite(SILENCE / 3).await {
            Ok(ringing) => ringing.reject(480),
            Err(_) => Err(error),
        }
    }

    fn callee_words(&self) -> String {
        self.callees.iter().map(|agent| agent.address().to_string()).collect::<Vec<_>>().join(" or ")
    }
}

/// What came, in words.
pub(super) fn came(error: &AgentError) -> String {
    match error {
        AgentError::Missing { what, waited } => {
            format!("nothing: {what} did not come within {} ms", waited.as_millis())
        }
        AgentError::Instead { came, .. } => came.clone(),
        other => other.to_string(),
    }
}
