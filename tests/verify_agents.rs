//! The user agents of the smoke call are strict, and set up many calls.

#[path = "faulty_edge/edge.rs"]
mod edge;
#[path = "support/loopback.rs"]
mod loopback;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use edge::Edge;
use loopback::{Block, NUMBER};
use sipedge::verify::agent::{Agent, AgentError, Call, Dialling, End, Expected, Invite, RingingCall, Settings};
use sipedge::verify::trace::Trace;
use tokio::task::JoinSet;

/// An edge without fault, and user agents around it.
struct Stand {
    block: Block,
    _edge: Edge,
}

impl Stand {
    /// Calls from the caller's address go to `callee`.
    fn new(block: Block, callee: SocketAddr) -> Self {
        Self { block, _edge: Edge::start(block.edge(callee)).expect("the edge's addresses are free") }
    }

    fn invite(&self) -> Invite {
        Invite::new(self.block.ingress(), NUMBER)
    }
}

fn agent(address: SocketAddr, trace: &Trace) -> Agent {
    Agent::new(UdpSocket::bind(address).expect("the address is free"), quick(), trace).expect("inside a runtime")
}

/// Timers short enough to see retransmissions in a test.
fn quick() -> Settings {
    Settings { t1: Duration::from_millis(50), patience: Duration::from_secs(2), ..Settings::default() }
}

/// A peer without any SIP stack, for messages that no user agent would send.
struct Wire {
    socket: UdpSocket,
}

impl Wire {
    fn new(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).expect("the address is free");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout can be set");
        Self { socket }
    }

    fn send(&self, text: &str, to: SocketAddr) {
        self.socket.send_to(text.replace('\n', "\r\n").as_bytes(), to).expect("loopback takes datagrams");
    }

    /// The next datagram. Runs beside the runtime, so that the user agents go on meanwhile.
    async fn receive(&self) -> String {
        let socket = self.socket.try_clone().expect("a socket can be cloned");
        let read = move || {
            let mut buffer = [0; 65_535];
            let length = socket.recv(&mut buffer).expect("a message comes within two seconds");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        tokio::task::spawn_blocking(read).await.expect("the reader does not panic")
    }
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let prefix = format!("{name}: ");
    message
        .lines()
        .find_map(|line| line.strip_prefix(prefix.as_str()))
        .unwrap_or_else(|| panic!("no {name} in\n{message}"))
}

#[tokio::test]
async fn twenty_calls_at_once_end_from_either_side() {
    let block = Block::take();
    let stand = Stand::new(block, block.callee());
    let trace = Trace::new();
    let (caller, callee) = (agent(block.caller(), &trace), agent(block.callee(), &trace));
    let mut calls = JoinSet::new();
    for index in 0..20 {
        let (caller, callee, invite) = (caller.clone(), callee.clone(), stand.invite());
        calls.spawn(async move {
            let call = Call::place(&caller, &[callee], &invite).await?;
            call.hang_up(if index % 2 == 0 { End::Caller } else { End::Callee }).await
        });
    }
    let results: Vec<Result<(), AgentError>> = calls.join_all().await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(results.len(), 20);
}

#[tokio::test]
async fn one_socket_is_caller_and_callee_at_the_same_time() {
    let block = Block::take();
    let stand = Stand::new(block, block.caller());
    let both = agent(block.caller(), &Trace::new());
    for end in [End::Caller, End::Callee] {
        let call = Call::place(&both, std::slice::from_ref(&both), &stand.invite()).await.expect("the call is set up");
        call.hang_up(end).await.expect("the call is hung up");
    }
}

#[tokio::test]
async fn a_ringing_call_is_cancelled() {
    let block = Block::take();
    let stand = Stand::new(block, block.callee());
    let trace = Trace::new();
    let (caller, callee) = (agent(block.caller(), &trace), agent(block.callee(), &trace));
    let ringing = RingingCall::place(&caller, &[callee], &stand.invite()).await.expect("the call rings");
    ringing.cancel().await.expect("the call is cancelled");
}

#[tokio::test]
async fn a_call_that_nobody_expects_gets_480() {
    let block = Block::take();
    let stand = Stand::new(block, block.callee());
    let trace = Trace::new();
    let (caller, _callee) = (agent(block.caller(), &trace), agent(block.callee(), &trace));
    let mut dialling = Dialling::start(&caller, &stand.invite()).expect("the INVITE is sent");
    let rejected = dialling.rejected().await.expect("a final response");
    assert_eq!(rejected.message.status_code.code(), 480);
}

#[tokio::test]
async fn an_invite_without_answer_is_sent_again_on_the_same_branch_at_doubling_intervals() {
    let block = Block::take();
    let wire = Wire::new(block.ingress());
    let trace = Trace::new();
    let caller = agent(block.caller(), &trace);
    let invite = Invite::new(block.ingress(), NUMBER);
    let mut dialling = Dialling::start(&caller, &invite).expect("the INVITE is sent");
    let first = wire.receive().await;
    assert_eq!(wire.receive().await, first);
    assert_eq!(wire.receive().await, first);
    let sent: Vec<Duration> = trace.of(&invite.call_id).iter().map(|message| message.at).collect();
    let (once, twice) = (sent[1] - sent[0], sent[2] - sent[1]);
    assert!(once >= Duration::from_millis(50) && twice >= Duration::from_millis(100), "{sent:?}");

    // A provisional response ends that (timer A), and the ACK of a failure is on the branch of the INVITE.
    let answer = |status: &str| {
        let lines = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| format!("{name}: {}", header(&first, name)));
        format!("SIP/2.0 {status}\n{}\nContent-Length: 0\n\n", lines.join("\n"))
    };
    wire.send(&answer("180 Ringing"), block.caller());
    dialling.provisional(180).await.expect("180 arrives");
    wire.send(&answer("486 Busy Here"), block.caller());
    assert_eq!(dialling.rejected().await.expect("486 arrives").message.status_code.code(), 486);
    let mut next = wire.receive().await;
    while next.starts_with("INVITE") {
        next = wire.receive().await;
    }
    assert!(next.starts_with("ACK "), "{next}");
    assert_eq!(header(&next, "Via"), header(&first, "Via"));
    assert_eq!(header(&next, "CSeq"), "1 ACK");
}

#[tokio::test]
async fn a_callee_repeats_its_200_until_the_ack_and_answers_where_via_says() {
    let block = Block::take();
    let wire = Wire::new(block.ingress());
    let trace = Trace::new();
    let callee = agent(block.callee(), &trace);
    let mut expected = Expected::at(std::slice::from_ref(&callee), "one@test");
    wire.send(&request("INVITE", "one@test", "z9hG4bKa", "", 1, block), block.callee());
    let ringing = expected.invite(Duration::from_secs(2)).await.expect("the INVITE arrives");
    let mut dialog = ringing.answer().expect("the 200 is sent");
    let first = wire.receive().await;
    assert!(first.starts_with("SIP/2.0 200"), "{first}");
    assert_eq!(wire.receive().await, first, "the 200 is repeated until its ACK comes");
    assert_eq!(
        first.lines().filter(|line| line.starts_with("Record-Route")).collect::<Vec<_>>(),
        ["Record-Route: <sip:a@192.0.2.1;lr>", "Record-Route: <sip:b@192.0.2.2;lr>"],
    );
    assert_eq!(dialog.routes(), ["<sip:a@192.0.2.1;lr>", "<sip:b@192.0.2.2;lr>"], "the callee's route set is in order");
    let tag = header(&first, "To").split("tag=").nth(1).expect("a tag").to_owned();
    wire.send(&request("ACK", "one@test", "z9hG4bKb", &tag, 1, block), block.callee());
    dialog.ack().await.expect("the ACK arrives");

    // In the dialog: an old CSeq gets 500, a wrong tag 481, and the real BYE 200.
    let status = async |text: String| {
        wire.send(&text, block.callee());
        loop {
            let answer = wire.receive().await;
            if answer != first {
                return answer.lines().next().unwrap_or_default().to_owned();
            }
        }
    };
    assert_eq!(
        status(request("BYE", "one@test", "z9hG4bKc", &tag, 1, block)).await,
        "SIP/2.0 500 Server Internal Error"
    );
    assert_eq!(
        status(request("BYE", "one@test", "z9hG4bKd", "wrong", 2, block)).await,
        "SIP/2.0 481 Call/Transaction Does Not Exist"
    );
    let bye = request("BYE", "one@test", "z9hG4bKe", &tag, 2, block);
    let (answer, ended) = tokio::join!(status(bye), dialog.expect_bye());
    assert_eq!(answer, "SIP/2.0 200 OK");
    ended.expect("the BYE arrives");
}

#[tokio::test]
async fn a_callee_refuses_the_same_invite_by_another_path() {
    let block = Block::take();
    let wire = Wire::new(block.ingress());
    let callee = agent(block.callee(), &Trace::new());
    let mut expected = Expected::at(std::slice::from_ref(&callee), "two@test");
    wire.send(&request("INVITE", "two@test", "z9hG4bKa", "", 1, block), block.callee());
    let _ringing = expected.invite(Duration::from_secs(2)).await.expect("the INVITE arrives");
    wire.send(&request("INVITE", "two@test", "z9hG4bKb", "", 1, block), block.callee());
    assert!(wire.receive().await.starts_with("SIP/2.0 482"));
}

/// A request as an edge would send it, with two Record-Routes.
fn request(method: &str, call_id: &str, branch: &str, to_tag: &str, number: u32, block: Block) -> String {
    let (edge, callee) = (block.ingress(), block.callee());
    let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
    format!(
        "{method} sip:callee@{callee} SIP/2.0\nVia: SIP/2.0/UDP {edge};branch={branch}\nRecord-Route: <sip:a@192.0.2.1;lr>\n\
         Record-Route: <sip:b@192.0.2.2;lr>\nMax-Forwards: 70\nFrom: <sip:x@example.com>;tag=1\nTo: <sip:y@example.com>{tag}\n\
         Call-ID: {call_id}\nCSeq: {number} {method}\nContact: <sip:x@{edge}>\nContent-Length: 0\n\n"
    )
}
