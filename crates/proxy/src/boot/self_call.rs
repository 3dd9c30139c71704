use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::{timeout, timeout_at};

use crate::engine::{Control, Place, shard_of};
use crate::net::Proxy;

/// Time for one message to come through. On one machine it takes well under a millisecond.
const STEP: Duration = Duration::from_secs(1);

/// First and longest pause between tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Longest message of a self-call, in bytes: they have about 600.
const MAX_MESSAGE: usize = 4_096;

/// Call-IDs that are tried for one shard. With a good hash 1,000 shards are found within 10,000 with near certainty.
const MAX_CALL_IDS: usize = 100_000;

/// Why the call through the instance itself did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("self-call: shard {shard}: {what}")]
pub struct SelfCallError {
    /// The shard that owned the call.
    pub shard: usize,
    /// What was expected and what came.
    pub what: String,
}

/// Places one call through each shard: INVITE, 100, 180, 200, ACK, BYE, 200, by the real sockets, from and to user agents on the private
/// address. Tries again until `deadline` has passed; returns how long the successful try took.
///
/// The route that the edge records names its advertised address. An instance cannot reach that behind a load balancer (AWS: no hairpin to
/// the same target), so the user agents honour the Route set but send to the private ingress socket.
pub async fn self_call(proxy: &Proxy, deadline: Duration) -> Result<Duration, SelfCallError> {
    let started = Instant::now();
    let mut pause = BACKOFF.0;
    let mut attempt = 0u64;
    loop {
        attempt += 1;
        let tried = Instant::now();
        let error = match place_calls(proxy, attempt).await {
            Ok(()) => return Ok(tried.elapsed()),
            Err(error) => error,
        };
        tracing::warn!(attempt, "{error}");
        if started.elapsed() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn place_calls(proxy: &Proxy, attempt: u64) -> Result<(), SelfCallError> {
    let place = proxy.place();
    let no_socket = |error: std::io::Error| SelfCallError { shard: 0, what: format!("no socket: {error}") };
    let bind = || UdpSocket::bind(SocketAddr::new(place.ingress.ip(), 0));
    let caller = bind().await.map_err(no_socket)?;
    let callee = bind().await.map_err(no_socket)?;
    let caller = Agent { address: caller.local_addr().map_err(no_socket)?, socket: caller };
    let callee = Agent { address: callee.local_addr().map_err(no_socket)?, socket: callee };
    proxy.control(Control::SelfCall { caller: caller.address, callee: callee.address });
    let seed = RandomState::new().hash_one(attempt);
    for shard in 0..proxy.shards() {
        let failed = |what| SelfCallError { shard, what };
        let call = Call::for_shard(place, &caller, shard, proxy.shards(), seed)
            .ok_or_else(|| failed("found no Call-ID that it owns".to_owned()))?;
        call.place(&caller, &callee).await.map_err(failed)?;
    }
    Ok(())
}

/// One user agent.
struct Agent {
    socket: UdpSocket,
    address: SocketAddr,
}

struct Call<'a> {
    place: &'a Place,
    id: String,
    tag: String,
    invite: String,
}

impl<'a> Call<'a> {
    /// A call whose Call-ID belongs to `shard`.
    fn for_shard(place: &'a Place, caller: &Agent, shard: usize, shards: usize, seed: u64) -> Option<Self> {
        let host = match place.advertised.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => format!("[{v6}]"),
            Err(_) => place.advertised.clone(),
        };
        let uri = format!("sip:self-call@{host}:{}", place.ingress.port());
        (0..MAX_CALL_IDS).map(|number| {
            let id = format!("self-call-{seed:016x}-{number}");
            let tag = format!("{seed:08x}{number}");
            let address = caller.address;
            let invite = format!(
                "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{tag}invite;rport\r\nMax-Forwards: 70\r\n\
                 From: <sip:self-call@{address}>;tag={tag}\r\nTo: <{uri}>\r\nCall-ID: {id}\r\nCSeq: 1 INVITE\r\n\
                 Contact: <sip:caller@{address}>\r\nContent-Length: 0\r\n\r\n"
            );
            Self { place, id, tag, invite }
        }).find(|call| shard_of(call.invite.as_bytes(), shards) == Some(shard))
    }

    async fn place(&self, caller: &Agent, callee: &Agent) -> Result<(), String> {
        let ingress = self.place.ingress;
        send(caller, self.invite.as_bytes(), ingress).await?;
        let refusal = |message: &Message| message.status().is_some_and(|code| code >= 300);
        let (invite, from) = tokio::select! {
            arrived = self.expect(callee, "the INVITE at the called side", |message| message.is_request("INVITE")) => arrived?,
            Ok((refusal, _)) = self.expect(caller, "a refusal", refusal) => {
                return Err(format!("the INVITE was answered {}", refusal.first_line()));
            }
        };
        if from != self.place.egress {
            return Err(format!("the INVITE left from {from} instead of the egress socket {}", self.place.egress));
        }
        if invite.all("Record-Route").is_empty() {
            return Err("the INVITE arrived without Record-Route: the edge would not stay in the call's path".into());
        }
        let contact = format!("Contact: <sip:callee@{}>\r\n", callee.address);
        for (status, headers) in [("100 Trying", ""), ("180 Ringing", &*contact), ("200 OK", &*contact)] {
            send(callee, self.response(&invite, status, headers).as_bytes(), from).await?;
        }
        self.expect(caller, "180 Ringing", |message| message.status() == Some(180)).await?;
        let (ok, _) = self.expect(caller, "200 OK to the INVITE", |message| message.status() == Some(200)).await?;
        send(caller, self.in_dialog(caller, &ok, "ACK", 1)?.as_bytes(), ingress).await?;
        self.expect(callee, "the ACK at the called side", |message| message.is_request("ACK")).await?;
        send(caller, self.in_dialog(caller, &ok, "BYE", 2)?.as_bytes(), ingress).await?;
        let (bye, from) =
            self.expect(callee, "the BYE at the called side", |message| message.is_request("BYE")).await?;
        send(callee, self.response(&bye, "200 OK", "").as_bytes(), from).await?;
        let answers_bye = |message: &Message| message.status() == Some(200) && message.one("CSeq").ends_with("BYE");
        self.expect(caller, "200 OK to the BYE", answers_bye).await?;
        Ok(())
    }

    /// The next message of this call that is `wanted`; others are skipped.
    async fn expect(
        &self,
        at: &Agent,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<(Message, SocketAddr), String> {
        let deadline = tokio::time::Instant::now() + STEP;
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut seen = None;
        loop {
            let (length, from) = match timeout_at(deadline, at.socket.recv_from(&mut buffer)).await {
                Ok(Ok(received)) => received,
                Ok(Err(error)) => return Err(format!("waiting for {what}: {error}")),
                Err(_) => {
                    let seen = seen.map_or(String::new(), |line| format!("; instead came {line:?}"));
                    return Err(format!("{what} did not arrive within {} s{seen}", STEP.as_secs()));
                }
            };
            let message = Message::new(buffer.get(..length).unwrap_or_default());
            if message.one("Call-ID") != self.id {
                continue;
            }
            if wanted(&message) {
                return Ok((message, from));
            }
            seen = Some(message.first_line().to_owned());
        }
    }

    fn response(&self, request: &Message, status: &str, headers: &str) -> String {
        let mut to = request.one("To").to_owned();
        if !to.contains(";tag=") && !status.starts_with("100") {
            to = format!("{to};tag={}callee", self.tag);
        }
        let copied: String = ["Via", "Record-Route"]
            .iter()
            .flat_map(|name| request.all(name).into_iter().map(move |value| format!("{name}: {value}\r\n")))
            .collect();
        let (from, id, cseq) = (request.one("From"), &self.id, request.one("CSeq"));
        format!(
            "SIP/2.0 {status}\r\n{copied}From: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq}\r\n{headers}\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// A request of the caller inside the dialog (RFC 3261 §12.2.1.1): the Route set is the Record-Route reversed.
    fn in_dialog(&self, caller: &Agent, ok: &Message, method: &str, cseq: u32) -> Result<String, String> {
        let contact = ok.one("Contact");
        let target = contact
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'))
            .map(|(uri, _)| uri)
            .ok_or_else(|| format!("the 200 OK has no usable Contact: {contact:?}"))?;
        let routes: String =
            ok.all("Record-Route").into_iter().rev().map(|value| format!("Route: {value}\r\n")).collect();
        if routes.is_empty() {
            return Err("the 200 OK has no Record-Route".into());
        }
        let Self { tag, id, .. } = self;
        let (address, from, to) =
            (caller.address, format!("<sip:self-call@{}>;tag={tag}", caller.address), ok.one("To"));
        Ok(format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{tag}{method};rport\r\n{routes}\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
        ))
    }
}

async fn send(from: &Agent, bytes: &[u8], to: SocketAddr) -> Result<(), String> {
    match timeout(STEP, from.socket.send_to(bytes, to)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot send from {} to {to}: {error}", from.address)),
        Err(_) => Err(format!("cannot send from {} to {to}: no room in the send buffer", from.address)),
    }
}

/// A message as these two user agents need it: its first line and headers by full name.
struct Message(String);

impl Message {
    fn new(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    fn is_request(&self, method: &str) -> bool {
        self.first_line().strip_prefix(method).is_some_and(|rest| rest.starts_with(' '))
    }

    fn status(&self) -> Option<u16> {
        self.first_line().strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// All values of a header, in order; those in one line are taken apart at the commas between angle brackets.
    fn all(&self, name: &str) -> Vec<&str> {
        let headers = self.0.lines().skip(1).take_while(|line| !line.is_empty());
        let values =
            headers.filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| value.split(", ")).map(str::trim).collect()
    }

    fn one(&self, name: &str) -> &str {
        let mut headers =
            self.0.lines().skip(1).take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}
