//! Both carriers of the yardstick (`bench/callgen.c`): the same messages, byte for byte but for addresses, handed straight to an engine.

use std::time::Duration;

use sipedge_proxy::config::Config;
use sipedge_proxy::engine::{Arrival, Port};

use super::{Bench, CALLEE, CALLER, address, config};

/// Calls through an engine.
pub struct Carriers {
    pub bench: Bench,
    /// Messages that have arrived at either carrier.
    pub arrived: u64,
}

/// A call that is up to its state.
pub struct Call {
    number: usize,
    /// Via, From, To, Call-ID and CSeq of the INVITE as it arrived at the called side.
    head: String,
    record_route: String,
}

impl Carriers {
    pub fn new() -> Self {
        let mut config: Config = config();
        config.budgets.transactions = 4_000_000;
        config.budgets.message_bytes = 1 << 32;
        config.trunks[0].limits.calls = None;
        Self { bench: Bench::new(config), arrived: 0 }
    }

    /// Seven messages in and seven out: INVITE, 100, 180, 200, ACK, BYE, 200.
    pub fn call(&mut self, number: usize) {
        let call = self.ring(number);
        let head = format!("{};tag=callee{number}\r\n{}", call.head, call.record_route);
        let ok = format!("SIP/2.0 200 OK\r\n{head}{CONTACT}{SERVER}{OFFERS}{}\r\n\r\n{ANSWER}", ANSWER.len());
        self.receive(Port::Egress, CALLEE, &ok, "SIP/2.0 200 OK\r\n");
        let ack = call.in_dialog("ACK", 1, "Contact: <sip:+15557654321@192.0.2.1:5060;transport=udp>\r\n");
        self.receive(Port::Ingress, CALLER, &ack, "ACK sip:+15551230001@198.51.100.1:5060;transport=udp SIP/2.0\r\n");
        let bye = self.receive(Port::Ingress, CALLER, &call.in_dialog("BYE", 2, "Reason: Q.850;cause=16\r\n"), "BYE ");
        let ok = format!("SIP/2.0 200 OK\r\n{}\r\n{SERVER}Content-Length: 0\r\n\r\n", head_of(&bye));
        self.receive(Port::Egress, CALLEE, &ok, "SIP/2.0 200 OK\r\n");
    }

    /// The first three of them: the call rings.
    pub fn ring(&mut self, number: usize) -> Call {
        let invite = format!(
            "INVITE sip:+15551230001@proxy.example.net SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK4d2i{number}\r\n\
             Via: SIP/2.0/UDP 172.18.21.7:5060;rport=5060;received=172.18.21.7;branch=z9hG4bK2f0c7a1e-9a41-4a4c-b8d2-{number}\r\n\
             {FROM}{number}\r\nTo: <sip:+15551230001@proxy.example.net;user=phone>\r\nCall-ID: {number}-4d2@192.0.2.1\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 66\r\nContact: <sip:+15557654321@192.0.2.1:5060;transport=udp>\r\n\
             User-Agent: Carrier A Gateway\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, REFER\r\nSupported: timer\r\n\
             Session-Expires: 1800\r\nMin-SE: 120\r\nP-Asserted-Identity: <sip:+15557654321@carrier-a.example.com>\r\n\
             X-CarrierA-AccountSid: AC0123456789abcdef0123456789abcdef\r\nX-CarrierA-CallSid: CA89abcdef0123456789abcdef01234567\r\n\
             Content-Type: application/sdp\r\nContent-Disposition: session\r\nContent-Length:  {}\r\n\r\n{OFFER}",
            OFFER.len()
        );
        let invite = self.receive(Port::Ingress, CALLER, &invite, "INVITE sip:+15551230001@198.51.100.1 SIP/2.0\r\n");
        let lines = invite.lines().filter(|line| line.starts_with("Record-Route:"));
        let record_route = lines.map(|line| format!("{line}\r\n")).collect();
        let call = Call { number, head: head_of(&invite), record_route };
        let trying = format!("SIP/2.0 100 Trying\r\n{}\r\n{SERVER}Content-Length: 0\r\n\r\n", call.head);
        self.hand_over(Port::Egress, CALLEE, &trying);
        self.bench.engine.clear_outbox();
        let head = format!("{};tag=callee{number}\r\n{}", call.head, call.record_route);
        let ringing = format!("SIP/2.0 180 Ringing\r\n{head}{CONTACT}{SERVER}Content-Length: 0\r\n\r\n");
        self.receive(Port::Egress, CALLEE, &ringing, "SIP/2.0 180 Ringing\r\n");
        call
    }

    /// Time passes; nothing is sent meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let until = self.bench.now + time;
        let engine = &mut self.bench.engine;
        while let Some(at) = engine.poll_timeout().filter(|at| *at <= until) {
            engine.handle_timeout(at);
            assert_eq!(engine.outbox().transmits().len(), 0);
            engine.clear_outbox();
        }
        self.bench.now = until;
    }

    /// Hands a datagram to the engine; the last one that it has sent, which begins as it has to.
    fn receive(&mut self, port: Port, from: &str, text: &str, begins: &str) -> String {
        self.hand_over(port, from, text);
        let outbox = self.bench.engine.outbox();
        self.arrived += outbox.transmits().len() as u64;
        let last = outbox.transmits().last().map(|sent| String::from_utf8_lossy(sent.bytes).into_owned());
        self.bench.engine.clear_outbox();
        let last = last.unwrap_or_default();
        assert!(last.starts_with(begins), "{begins:?} in answer to\n{text}\nbut\n{last}");
        last
    }

    fn hand_over(&mut self, port: Port, from: &str, text: &str) {
        let arrival = Arrival::datagram(port, address(from));
        self.bench.engine.handle_message(self.bench.now, &arrival, text.as_bytes());
    }
}

impl Call {
    fn in_dialog(&self, method: &str, cseq: u32, more: &str) -> String {
        let number = self.number;
        let route = self.record_route.replace("Record-Route:", "Route:");
        format!(
            "{method} sip:+15551230001@198.51.100.1:5060;transport=udp SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK4d2{method}{number}\r\n{route}{FROM}{number}\r\n\
             To: <sip:+15551230001@proxy.example.net;user=phone>;tag=callee{number}\r\nCall-ID: {number}-4d2@192.0.2.1\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{more}User-Agent: Carrier A Gateway\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

/// The lines of a request that its responses repeat, To last and without its line end.
fn head_of(request: &str) -> String {
    let is_one = |line: &&str| ["Via:", "From:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name));
    let lines: String = request.lines().filter(is_one).map(|line| format!("{line}\r\n")).collect();
    lines + request.lines().find(|line| line.starts_with("To:")).unwrap_or_default()
}

const FROM: &str = "From: \"+15557654321\" <sip:+15557654321@carrier-a.example.com;isup-oli=62>;tag=4d2A";
const CONTACT: &str = "Contact: <sip:+15551230001@198.51.100.1:5060;transport=udp>\r\n";
const SERVER: &str = "Server: Carrier B SBC\r\n";
const OFFERS: &str = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE\r\nSupported: timer\r\nContent-Type: application/sdp\r\nContent-Length: ";
const OFFER: &str = "v=0\r\no=root 1482317 1482317 IN IP4 192.0.2.10\r\ns=Carrier A Media Gateway\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=audio 16000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\n";
const ANSWER: &str = "v=0\r\no=CarrierB 90125 90126 IN IP4 198.51.100.20\r\ns=SIP Media Capabilities\r\nc=IN IP4 198.51.100.20\r\nt=0 0\r\n\
    m=audio 17000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";
