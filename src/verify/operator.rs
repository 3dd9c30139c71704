//! The operator's call: from anywhere, with a password, to the answerer that the edge has built in. It proves that the edge is reached, runs
//! and relays, without a carrier; on AWS it is the call that needs nothing but the operator's own machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use rsip::Response;

use super::agent::{Agent, AgentError, Challenge, Credentials, Dialling, Dialog, Invite, Received, value};
use super::checks::{ANSWERED, BYE_CALLEE, BYE_CALLER, PROVISIONAL, REINVITE, SET_UP_DELAY, SILENCE, STRANGER, came};
use super::report::{CallReport, Check, LadderMessage};
use super::sheet::{Failure, Sheet};
use super::trace::Trace;
use super::{Addresses, Bench};
use crate::spec::Transport;

pub(super) const CHALLENGED: &str = "challenged";
const INSTANCE: &str = "through-instance";
const PASSWORD: &str = "wrong-password-refused";

/// The parts of the operator's call, as the ladder names them.
const MAIN_PART: &str = "operator's call";
const BYE_PART: &str = "BYE from the answerer";
const PASSWORD_PART: &str = "wrong password";
const STRANGER_PART: &str = "stranger";

/// Every check with its title and its part, in the order of the report.
const CHECKS: [(&str, &str, &str); 10] = [
    (CHALLENGED, "401 with SHA-256 first, MD5 second", MAIN_PART),
    (PROVISIONAL, "100 and 180 come back to the operator", MAIN_PART),
    (ANSWERED, "200 comes back by the path of the INVITE", MAIN_PART),
    (INSTANCE, "200 names instance and configuration", MAIN_PART),
    (SET_UP_DELAY, "set-up delay within its limit", MAIN_PART),
    (REINVITE, "re-INVITE and its ACK through the edge", MAIN_PART),
    (BYE_CALLER, "BYE from the operator, 200 back", MAIN_PART),
    (BYE_CALLEE, "BYE from the answerer, 200 back", BYE_PART),
    (PASSWORD, "wrong password refused", PASSWORD_PART),
    (STRANGER, "call to anybody else refused", STRANGER_PART),
];

/// Source and destination of the operator's call in reports, where others have trunks.
const FROM: &str = "operator";
const TO: &str = "answerer";

/// What the answerer hangs up by itself for, behind its user.
const HANG_UP: &str = "+hangup";

/// A password that is none: the check of the wrong one must not depend on the right one.
const WRONG_PASSWORD: &str = "not the answerer's password";

/// Sockets of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine;

impl Bench for Machine {
    fn udp_socket(&self, _: &str, address: SocketAddr) -> std::io::Result<UdpSocket> {
        UdpSocket::bind(address)
    }

    fn tcp_socket(&self, _: &str, address: SocketAddr) -> std::io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Listener and connections share the user agent's port.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
        Ok(socket)
    }
}

/// The address of this machine that packets to `edge` leave from. Nothing is sent.
pub(super) fn address_towards(edge: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr =
        if edge.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(edge)?;
    Ok(socket.local_addr()?.ip())
}

/// The operator and what is called.
#[derive(Debug)]
pub(super) struct OperatorScene {
    pub(super) addresses: Addresses,
    pub(super) transport: Transport,
    pub(super) credentials: Credentials,
    /// Whether the edge is set to refuse in silence.
    pub(super) silent: bool,
    pub(super) max_setup: Duration,
    pub(super) agent: Agent,
    pub(super) trace: Trace,
    pub(super) sheet: Sheet,
    /// The instance that the main call went through, as its answer says.
    pub(super) through: OnceLock<String>,
}

impl OperatorScene {
    pub(super) async fn play(self) -> CallReport {
        let user = &self.credentials.user;
        let users = [user.clone(), format!("{user}{HANG_UP}"), user.clone(), format!("not-{user}")];
        let [main, hang_up, wrong, stranger] =
            users.map(|user| Invite { transport: self.transport, ..Invite::new(self.addresses.ingress, &user) });
        let parts = [
            (MAIN_PART, main.call_id.clone()),
            (BYE_PART, hang_up.call_id.clone()),
            (PASSWORD_PART, wrong.call_id.clone()),
            (STRANGER_PART, stranger.call_id.clone()),
        ];
        tokio::join!(self.main_call(main), self.hung_up(hang_up), self.wrong_password(wrong), self.stranger(stranger));
        let messages = |(part, call_id): &(&str, String)| -> Vec<LadderMessage> {
            self.trace.of(call_id).into_iter().map(|message| LadderMessage::new(part, message)).collect()
        };
        let ladder = parts.iter().flat_map(messages).collect();
        let caller = self.agent.address().to_string();
        CallReport { instance: self.through.into_inner(), ..report(&self.addresses, caller, &self.sheet, ladder) }
    }

    /// The main part alone: an answered call, without the trials of what has to be refused.
    pub(super) async fn play_briefly(self) -> CallReport {
        let invite =
            Invite { transport: self.transport, ..Invite::new(self.addresses.ingress, &self.credentials.user) };
        let call_id = invite.call_id.clone();
        self.main_call(invite).await;
        let messages = self.trace.of(&call_id).into_iter();
        let ladder = messages.map(|message| LadderMessage::new(MAIN_PART, message)).collect();
        let caller = self.agent.address().to_string();
        let mut report = report(&self.addresses, caller, &self.sheet, ladder);
        report.checks.retain(|check| check.part == MAIN_PART);
        report.passed = report.checks.iter().all(|check| check.passed);
        report.instance = self.through.into_inner();
        report
    }

    async fn main_call(&self, invite: Invite) -> Option<()> {
        let sheet = &self.sheet;
        let challenged = sheet.check(CHALLENGED, self.challenged(&invite)).await;
        let (first, challenge) = challenged?;
        let began = Instant::now();
        let mut caller = sheet.check(PROVISIONAL, self.provisional(&first, &challenge)).await?;
        let answer = sheet.check(ANSWERED, self.answered(&mut caller)).await?;
        let delay = answer.at.saturating_duration_since(began);
        sheet.judge(INSTANCE, Duration::ZERO, self.instance(&answer));
        sheet.judge(SET_UP_DELAY, delay, self.set_up_delay(delay));
        let mut dialog = sheet.check(REINVITE, self.reinvite(caller)).await?;
        sheet.check(BYE_CALLER, self.bye(&mut dialog)).await
    }

    /// INVITE without credentials, and its challenge.
    async fn challenged(&self, invite: &Invite) -> Result<(Dialling, Challenge), Failure> {
        let expected = "401 with a challenge for SHA-256, and one for MD5";
        let explain = |error: AgentError| {
            let cause = match &error {
                AgentError::Instead { code: Some(403), .. } => {
                    "the edge has no answerer, or another user: `verify.answerer` in the spec, and a deploy since"
                }
                AgentError::Instead { code: Some(404), .. } => {
                    "this address is in a trunk's range: the edge takes the call for a carrier's"
                }
                AgentError::Instead { .. } => "what answers there is not the edge, or an edge that drains",
                AgentError::Send { .. } => "this machine has no way to the edge",
                _ => {
                    "the edge is not reached: a security group or firewall admits this machine not (`verify.operators` in the \
                     spec), no instance is healthy, or too many wrong passwords came from here in the last minutes"
                }
            };
            Failure::new(expected, came(&error), cause)
        };
        let mut dialling = Dialling::start(&self.agent, invite).map_err(explain)?;
        let refusal = dialling.rejected().await.map_err(explain)?;
        let challenges = Challenge::all(&refusal.message).map_err(explain)?;
        let offered: Vec<&str> = challenges.iter().map(Challenge::algorithm).collect();
        match challenges.into_iter().next() {
            Some(first) if offered == ["SHA-256", "MD5"] => Ok((dialling, first)),
            _ => Err(Failure::new(
                expected,
                format!("401 with {}", if offered.is_empty() { "no challenge".to_owned() } else { offered.join(", ") }),
                "what answers there is another SIP server than the edge",
            )),
        }
    }

    /// The INVITE again, with the proof; until it rings.
    async fn provisional(&self, first: &Dialling, challenge: &Challenge) -> Result<Dialling, Failure> {
        let explain = |error: AgentError| {
            let cause = match &error {
                AgentError::Instead { code: Some(401), .. } => {
                    "the password is not the edge's: it was changed since this instance has read it, or the instances do not \
                     share their keys"
                }
                AgentError::Instead { code: Some(486), .. } => {
                    "the answerer has ten calls already: try again in a minute"
                }
                AgentError::Instead { code: Some(503), .. } => {
                    "the instance drains, or has no room: it says when to try again"
                }
                AgentError::Instead { .. } => "the instance does not relay: its log says why",
                _ => "the answerer does not answer: the instance's log says why",
            };
            Failure::new("100 from the edge and 180 from its answerer", came(&error), cause)
        };
        let authorization = challenge.answer(&self.credentials, &first.uri()).map_err(explain)?;
        let mut caller = first.authorized(authorization).map_err(explain)?;
        caller.provisional(100).await.map_err(explain)?;
        caller.provisional(180).await.map_err(explain)?;
        Ok(caller)
    }

    async fn answered(&self, caller: &mut Dialling) -> Result<Received<Response>, Failure> {
        let ingress = self.addresses.ingress;
        let expected = format!("200 at the operator from {ingress}");
        let explain = |error: AgentError| {
            Failure::new(expected.clone(), came(&error), "responses get lost between the edge and this machine")
        };
        let answer = caller.answered().await.map_err(explain)?;
        match answer.source == ingress {
            true => Ok(answer),
            false => Err(Failure::new(
                expected,
                format!("it came from {}", answer.source),
                "responses leave by another socket than the one that the INVITE came in by: a NAT or firewall drops them",
            )),
        }
    }

    fn instance(&self, answer: &Received<Response>) -> Result<(), Failure> {
        let of = |name: &'static str| value(&answer.message.headers, name);
        let explain = |error: AgentError| {
            Failure::new(
                "X-Sipedge-Instance and X-Sipedge-Configuration",
                error.to_string(),
                "what answers is not the answerer",
            )
        };
        let instance = of("X-Sipedge-Instance").map_err(explain)?;
        let configuration = of("X-Sipedge-Configuration").map_err(explain)?;
        self.sheet.note(INSTANCE, format!("instance {instance}, configuration {configuration}"));
        // There is one answer in a scene that comes here.
        let _ = self.through.set(instance.to_string());
        Ok(())
    }

    fn set_up_delay(&self, delay: Duration) -> Result<(), Failure> {
        if delay <= self.max_setup {
            return Ok(());
        }
        let words = |duration: Duration| format!("{} ms", duration.as_millis());
        Err(Failure::new(
            format!("at most {}", words(self.max_setup)),
            words(delay),
            "the edge is overloaded, far away, or needed a retransmission (the ladder shows it)",
        ))
    }

    /// ACK, re-INVITE.
    async fn reinvite(&self, caller: Dialling) -> Result<Dialog, Failure> {
        let explain = |error: AgentError| {
            Failure::new(
                "200 to the re-INVITE",
                came(&error),
                "requests within the call do not come back to the instance that has it: Record-Route names another address than the \
                 ingress address, or the load balancer sends each packet elsewhere",
            )
        };
        let mut dialog = caller.confirm().map_err(explain)?;
        dialog.reinvite().await.map_err(explain)?;
        Ok(dialog)
    }

    async fn bye(&self, dialog: &mut Dialog) -> Result<(), Failure> {
        dialog.bye().await.map(|_| ()).map_err(|error| {
            Failure::new(
                "200 to the BYE",
                came(&error),
                "the edge does not relay the BYE, or refuses the token in its Route",
            )
        })
    }

    /// A second call, which the answerer ends.
    async fn hung_up(&self, invite: Invite) -> Option<()> {
        let trial = async {
            let (first, challenge) = self.challenged(&invite).await?;
            let mut caller = self.provisional(&first, &challenge).await?;
            self.answered(&mut caller).await?;
            let explain = |error: AgentError| {
                Failure::new(
                    "BYE from the answerer",
                    came(&error),
                    "requests of the edge do not pass this machine's NAT or firewall, though responses do: the BYE has to leave the \
                     edge by the flow that the INVITE came by",
                )
            };
            let mut dialog = caller.confirm().map_err(explain)?;
            dialog.expect_bye().await.map_err(explain)?;
            Ok(())
        };
        self.sheet.check(BYE_CALLEE, trial).await
    }

    async fn wrong_password(&self, invite: Invite) -> Option<()> {
        let trial = async {
            let expected = "401 or 403 to a wrong password, and no answer";
            let (first, challenge) = self.challenged(&invite).await?;
            let wrong = Credentials { password: WRONG_PASSWORD.to_owned(), ..self.credentials.clone() };
            let explain =
                |error: AgentError| Failure::new(expected, came(&error), "the edge does not answer the second INVITE");
            let authorization = challenge.answer(&wrong, &first.uri()).map_err(explain)?;
            let mut caller = first.authorized(authorization).map_err(explain)?;
            match caller.rejected().await {
                Ok(refusal) if matches!(refusal.message.status_code.code(), 401 | 403) => Ok(()),
                Ok(refusal) => Err(Failure::new(
                    expected,
                    refusal.message.status_code.to_string(),
                    "the edge looks at something else before the password",
                )),
                Err(error @ AgentError::Instead { .. }) => Err(Failure::new(
                    expected,
                    came(&error),
                    "the edge takes any password: everybody may call its answerer",
                )),
                Err(error) => Err(explain(error)),
            }
        };
        self.sheet.check(PASSWORD, trial).await
    }

    async fn stranger(&self, invite: Invite) -> Option<()> {
        let trial = async {
            let expected = if self.silent { "no answer" } else { "403" };
            let failed = |came: String, cause: &str| Err(Failure::new(expected, came, cause));
            let mut caller = match Dialling::start(&self.agent, &invite) {
                Ok(caller) => caller,
                Err(error) => return failed(came(&error), "this machine has no way to the edge"),
            };
            let wait = if self.silent { SILENCE } else { self.agent.settings().patience };
            match caller.rejected_within(wait).await {
                Ok(None) if self.silent => Ok(()),
                Ok(None) => {
                    failed("nothing".into(), "the edge is not reached, or drops what `refuse: answer` should answer")
                }
                Ok(Some(refusal)) if !self.silent && refusal.message.status_code.code() == 403 => Ok(()),
                Ok(Some(refusal)) => failed(
                    refusal.message.status_code.to_string(),
                    "the edge does not do what `refuse` in its configuration says, or this machine is in a trunk's range",
                ),
                Err(error) => failed(came(&error), "the edge takes calls from anybody: narrow the trunks' `from`"),
            }
        };
        self.sheet.check(STRANGER, trial).await
    }
}

/// The report of an operator's call that could not be tried.
pub(super) fn not_tried(addresses: &Addresses, error: &std::io::Error, cause: &str) -> CallReport {
    let sheet = Sheet::default();
    sheet.fail(CHALLENGED, Duration::ZERO, Failure::new("a user agent with the password", error.to_string(), cause));
    report(addresses, String::new(), &sheet, Vec::new())
}

fn report(addresses: &Addresses, caller: String, sheet: &Sheet, ladder: Vec<LadderMessage>) -> CallReport {
    let checks: Vec<Check> = CHECKS.iter().map(|(id, title, part)| sheet.line(id, title, part)).collect();
    CallReport {
        from: FROM.to_owned(),
        to: TO.to_owned(),
        caller,
        edge: addresses.ingress.to_string(),
        callee: Vec::new(),
        instance: None,
        passed: checks.iter().all(|check| check.passed),
        checks,
        ladder,
    }
}
