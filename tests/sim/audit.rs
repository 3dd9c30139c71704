//! The invariants: what an instance may send, judged by what it has received.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::engine::Port;

use crate::plan::Record;
use crate::wire::{Msg, address, is_name, parameter, sent_by};

/// Life of an instance: its index and how often it has been started.
pub type Life = (usize, u32);
pub type Sent = (Port, SocketAddr, Vec<u8>);

pub struct Audit {
    edge: SocketAddr,
    target_host: String,
    targets: BTreeSet<SocketAddr>,
    /// Final responses of each INVITE that an instance has received, by the transaction's name upstream.
    invites: BTreeMap<(Life, String), Vec<Vec<u8>>>,
    /// Who has sent something to an instance.
    sources: BTreeSet<(Life, SocketAddr)>,
    /// What each instance has sent to whom: a retransmission is nothing new.
    sent: BTreeSet<(Life, u64)>,
    /// Where the request with this branch went.
    destinations: BTreeMap<String, SocketAddr>,
}

impl Audit {
    pub fn new(edge: SocketAddr, target_host: String, targets: BTreeSet<SocketAddr>) -> Self {
        Self {
            edge,
            target_host,
            targets,
            invites: BTreeMap::new(),
            sources: BTreeSet::new(),
            sent: BTreeSet::new(),
            destinations: BTreeMap::new(),
        }
    }

    /// A stranger's datagram: at most one refusal, to the stranger alone.
    pub fn stranger(&self, source: SocketAddr, sent: &[Sent]) -> Result<(), String> {
        let refusal =
            |(_, to, bytes): &Sent| *to == source && Msg::parse(bytes).is_ok_and(|msg| matches!(msg.code(), 403 | 404));
        if sent.len() <= 1 && sent.iter().all(refusal) {
            return Ok(());
        }
        Err(format!("a stranger's datagram made more than a refusal: {}", lossy(sent)))
    }

    /// An instance has received `bytes` and sent `sent`.
    pub fn datagram(
        &mut self,
        life: Life,
        source: SocketAddr,
        bytes: &[u8],
        sent: &[Sent],
        records: &[Record],
    ) -> Result<(), String> {
        self.sources.insert((life, source));
        let input = Msg::parse(bytes)?;
        if input.is_request() && input.method() == "INVITE" {
            self.invites.entry((life, input.transaction())).or_default();
        }
        for one in sent {
            let output = Msg::parse(&one.2).map_err(|reason| format!("an instance sent what is no SIP: {reason}"))?;
            let is_new = self.sent.insert((life, fingerprint(one)));
            self.destination(life, one, &output, records)?;
            if !is_new {
                continue;
            }
            // The CANCEL of an INVITE that this instance has sent on is its own; of any other it is sent on like a request.
            let knows = self.invites.contains_key(&(life, input.transaction()));
            match (input.is_request(), output.is_request()) {
                (true, true) if knows && (input.method(), output.method()) == ("CANCEL", "CANCEL") => {}
                (true, true) if input.method() == output.method() => self.forwarded_request(source, &input, &output)?,
                (false, true) if matches!(output.method(), "CANCEL" | "ACK") => {}
                (true, false) => own_answer(source, &input, &output)?,
                (false, false) => forwarded_response(&input, &output)?,
                _ => return Err(format!("{} made the edge send {}", input.start, output.start)),
            }
        }
        Ok(())
    }

    /// Time has passed for an instance, and it has sent `sent`.
    pub fn timeout(&mut self, life: Life, sent: &[Sent], records: &[Record]) -> Result<(), String> {
        for one in sent {
            let output = Msg::parse(&one.2).map_err(|reason| format!("an instance sent what is no SIP: {reason}"))?;
            let is_new = self.sent.insert((life, fingerprint(one)));
            self.destination(life, one, &output, records)?;
            let is_own =
                if output.is_request() { output.method() == "CANCEL" } else { matches!(output.code(), 100 | 408) };
            if is_new && !is_own {
                return Err(format!("the passing of time made the edge send {}", output.start));
            }
        }
        Ok(())
    }

    /// Every INVITE that reached an instance that stayed up has had its final response.
    pub fn end(&self, is_up: impl Fn(Life) -> bool) -> Result<(), String> {
        for ((life, transaction), finals) in &self.invites {
            if finals.is_empty() && is_up(*life) {
                return Err(format!("instance {life:?} never ended the INVITE {transaction}"));
            }
        }
        Ok(())
    }

    /// Where a message goes: requests by a route, responses to who has sent something; and what a final response follows.
    fn destination(
        &mut self,
        life: Life,
        (port, to, bytes): &Sent,
        msg: &Msg,
        records: &[Record],
    ) -> Result<(), String> {
        if !msg.is_request() {
            let via = msg.top_via();
            if !self.sources.contains(&(life, *to)) || sent_by(&via) != to.to_string() {
                return Err(format!("a response goes to {to}, the request came from {via}"));
            }
            if *port != Port::Ingress {
                return Err("a response leaves by the egress port".to_owned());
            }
            return self.final_response(life, msg, bytes);
        }
        let via = msg.top_via();
        if *port != Port::Egress || sent_by(&via) != self.edge.to_string() || parameter(&via, "rport") != Some("") {
            return Err(format!("a request leaves by {port:?} with the topmost Via {via}"));
        }
        let known = self.destinations.get(&msg.branch());
        let is_initial = msg.tag("To").is_empty();
        let leads = match (known, msg.method()) {
            (Some(known), _) => known == to,
            (None, "INVITE" | "CANCEL") if is_initial => self.targets.contains(to),
            (None, _) if is_initial => false,
            _ => msg.call().and_then(|call| records.get(call)).is_some_and(|record| record.places.contains(to)),
        };
        if !leads {
            return Err(format!("no route leads to {to}: {}", msg.start));
        }
        self.destinations.insert(msg.branch(), *to);
        Ok(())
    }

    fn final_response(&mut self, life: Life, msg: &Msg, bytes: &[u8]) -> Result<(), String> {
        if msg.method() != "INVITE" {
            return Ok(());
        }
        let key = (life, msg.transaction());
        let finals = self.invites.get_mut(&key).ok_or("a response to an INVITE that was not received")?;
        let code = msg.code();
        if code < 200 {
            let is_late = !finals.is_empty() && code != 100;
            return if is_late { Err(format!("{} after the final response", msg.start)) } else { Ok(()) };
        }
        let is_same = |before: &Vec<u8>| {
            before == bytes
                || (code < 300 && Msg::parse(before).is_ok_and(|before| (200..300).contains(&before.code())))
        };
        if !finals.iter().all(is_same) {
            let before: Vec<String> = finals.iter().map(|before| lossy_bytes(before)).collect();
            return Err(format!("a second final response, {}, after {}", msg.start, before.join("\n")));
        }
        finals.push(bytes.to_vec());
        Ok(())
    }

    /// A request that goes on: one Via, one Max-Breadth and, for a new call, one Record-Route more; all else as it came, in its order.
    fn forwarded_request(&self, source: SocketAddr, input: &Msg, output: &Msg) -> Result<(), String> {
        let opens = input.method() == "INVITE" && input.tag("To").is_empty();
        let is_initial = input.tag("To").is_empty();
        // RFC 5393 §5.3.3: the sender had none.
        if output.headers.get(1) != Some(&("Max-Breadth".to_owned(), "60".to_owned())) {
            return Err(format!("{:?} instead of Max-Breadth: 60", output.headers.get(1)));
        }
        let mut added = 2;
        if opens {
            let (name, value) = &output.headers[2];
            if name != "Record-Route" || address(value) != Some(self.edge) || !value.ends_with(";lr>") {
                return Err(format!("{name}: {value} instead of the edge's Record-Route"));
            }
            added = 3;
        }
        let mut is_top = true;
        let mut expected: Vec<(String, String)> = Vec::new();
        for (name, value) in input.headers.iter().filter(|(name, _)| !is_name(name, "Route")) {
            let mut value = value.clone();
            if is_name(name, "Via") && std::mem::take(&mut is_top) && parameter(&value, "rport") == Some("") {
                value = value.replacen(";rport", &format!(";rport={}", source.port()), 1);
                value += &format!(";received={}", source.ip());
            }
            if is_name(name, "Max-Forwards") {
                value = (value.parse::<u8>().unwrap_or_default() - 1).to_string();
            }
            expected.push((name.clone(), value));
        }
        let rest = output.headers[added..].iter().filter(|(name, _)| !is_name(name, "Route"));
        if !rest.clone().eq(expected.iter()) {
            return Err(format!("headers changed on the way: {:#?} became {:#?}", expected, rest.collect::<Vec<_>>()));
        }
        let routes = input.list("Route").into_iter().skip_while(|route| address(route) == Some(self.edge));
        let routes: Vec<String> = routes.filter(|_| !is_initial).collect();
        if output.list("Route") != routes {
            return Err(format!("Route {:?} became {:?}", input.list("Route"), output.list("Route")));
        }
        let uri = if is_initial {
            let user = input.uri().split('@').next().unwrap_or_default();
            format!("{user}@{}", self.target_host)
        } else {
            input.uri().to_owned()
        };
        if output.uri() != uri || output.body != input.body {
            return Err(format!("Request-URI {} or body changed", output.uri()));
        }
        Ok(())
    }
}

/// A response that goes on: one Via less, and 503 as 500.
fn forwarded_response(input: &Msg, output: &Msg) -> Result<(), String> {
    let is_start =
        input.start == output.start || (input.code() == 503 && output.start == "SIP/2.0 500 Server Internal Error");
    let mut expected = input.headers.clone();
    expected.remove(input.headers.iter().position(|(name, _)| is_name(name, "Via")).unwrap_or_default());
    if !is_start || expected != output.headers || input.body != output.body {
        return Err(format!("a response changed on the way: {input:#?} became {output:#?}"));
    }
    Ok(())
}

/// A response of the edge: Via, From, To, Call-ID and CSeq of the request.
fn own_answer(source: SocketAddr, input: &Msg, output: &Msg) -> Result<(), String> {
    if input.method() == "ACK" {
        return Err("an ACK was answered".to_owned());
    }
    let same = |name| input.get(name) == output.get(name);
    let is_to = output.get("To").starts_with(input.get("To"));
    let mut vias = input.list("Via");
    if parameter(&vias[0], "rport") == Some("") {
        vias[0] =
            vias[0].replacen(";rport", &format!(";rport={}", source.port()), 1) + &format!(";received={}", source.ip());
    }
    if !(same("From") && same("Call-ID") && same("CSeq") && is_to) || output.list("Via") != vias {
        return Err(format!("{} does not fit {input:#?}: {output:#?}", output.start));
    }
    Ok(())
}

/// An ACK may go to any address of the dialog again and again; all else is told apart by its bytes.
fn fingerprint(sent: &Sent) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sent.1, &sent.2).hash(&mut hasher);
    hasher.finish()
}

fn lossy(sent: &[Sent]) -> String {
    sent.iter().map(|(port, to, bytes)| format!("{port:?} → {to}\n{}\n", lossy_bytes(bytes))).collect()
}

fn lossy_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sources that no trunk has: 203.0.113.128/25.
pub fn is_stranger(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [203, 0, 113] && ip.octets()[3] >= 128)
}
