//! A name server on loopback, over UDP and TCP, that answers as a test says.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Knows what it was told, and that nothing else exists. Dropping it ends it.
pub struct Dns {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    trouble: Vec<(Option<(Name, RecordType)>, Trouble)>,
    log: Vec<String>,
    held: bool,
    ended: bool,
}

/// What it does instead of answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Silence,
    /// Only the response code.
    Code(ResponseCode),
    /// The answer does not fit a datagram: it has to be asked for over TCP.
    Truncate,
    /// Bytes that are an answer up to the header, and noise after it.
    Noise,
}

impl Dns {
    pub fn start(ip: IpAddr) -> Self {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind((ip, 0)).unwrap();
                let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
                Some((udp, tcp))
            })
            .expect("a port that is free for UDP and TCP");
        let (address, state) = (udp.local_addr().unwrap(), Arc::default());
        // The threads notice within this time that the server was dropped.
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (for_udp, for_tcp) = (Arc::clone(&state), Arc::clone(&state));
        std::thread::spawn(move || serve_udp(&udp, &for_udp));
        std::thread::spawn(move || serve_tcp(&tcp, &for_tcp));
        Self { address, state }
    }

    pub fn address(&self, host: &str, ttl: u32, ip: IpAddr) -> &Self {
        self.add(
            host,
            ttl,
            match ip {
                IpAddr::V4(ip) => RData::A(A(ip)),
                IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
            },
        )
    }

    pub fn alias(&self, host: &str, ttl: u32, target: &str) -> &Self {
        self.add(host, ttl, RData::CNAME(CNAME(name(target))))
    }

    /// `numbers`: priority, weight, port.
    pub fn srv(&self, service: &str, ttl: u32, numbers: [u16; 3], target: &str) -> &Self {
        let [priority, weight, port] = numbers;
        self.add(service, ttl, RData::SRV(SRV::new(priority, weight, port, name(target))))
    }

    /// A NAPTR record of flag "s"; `numbers`: order, preference.
    pub fn naptr(&self, host: &str, ttl: u32, numbers: [u16; 2], service: &str, replacement: &str) -> &Self {
        self.naptr_of("s", "", host, ttl, numbers, service, replacement)
    }

    #[expect(clippy::too_many_arguments, reason = "a NAPTR record has that many fields")]
    pub fn naptr_of(
        &self,
        flags: &str,
        regexp: &str,
        host: &str,
        ttl: u32,
        numbers: [u16; 2],
        service: &str,
        replacement: &str,
    ) -> &Self {
        let [order, preference] = numbers;
        let bytes = |text: &str| text.as_bytes().into();
        let naptr = NAPTR::new(order, preference, bytes(flags), bytes(service), bytes(regexp), name(replacement));
        self.add(host, ttl, RData::NAPTR(naptr))
    }

    /// A record, whatever its type.
    pub fn add(&self, host: &str, ttl: u32, data: RData) -> &Self {
        self.state().records.push(Record::from_rdata(name(host), ttl, data));
        self
    }

    /// Forgets all records.
    pub fn clear(&self) -> &Self {
        self.state().records.clear();
        self
    }

    /// From now on, for every question.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.state().trouble = trouble.map(|trouble| (None, trouble)).into_iter().collect();
    }

    /// From now on nothing is answered (`true`), or what has waited is (`false`).
    pub fn hold(&self, held: bool) {
        self.state().held = held;
    }

    /// From now on, for one question.
    pub fn trouble_with(&self, host: &str, record_type: RecordType, trouble: Trouble) -> &Self {
        self.state().trouble.push((Some((name(host), record_type)), trouble));
        self
    }

    /// Every question so far: `A pstn.example`, and `A pstn.example by TCP`.
    pub fn asked(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Waits until it was asked `question` at least `times` times.
    pub fn wait_for(&self, question: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.asked().iter().filter(|asked| *asked == question).count() < times {
            assert!(Instant::now() < deadline, "not asked for {question} {times} times, but {:?}", self.asked());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.state().ended = true;
    }
}

fn serve_udp(socket: &UdpSocket, state: &Mutex<State>) {
    let mut buffer = [0; 1_500];
    while !state.lock().unwrap().ended {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        while state.lock().unwrap().holds() {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(answer) = state.lock().unwrap().answer(&buffer[..length], false) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, state: &Mutex<State>) {
    while !state.lock().unwrap().ended {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_err() {
                break;
            }
            let Some(answer) = state.lock().unwrap().answer(&query, true) else { break };
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            if stream.write_all(&[&length[..], &answer].concat()).is_err() {
                break;
            }
        }
    }
}

impl State {
    fn holds(&self) -> bool {
        self.held && !self.ended
    }

    fn answer(&mut self, query: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let question = query.queries.first()?;
        let (asked, record_type) = (question.name.to_lowercase(), question.query_type());
        let by = if by_tcp { " by TCP" } else { "" };
        self.log.push(format!("{record_type} {}{by}", asked.to_ascii().trim_end_matches('.')));

        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.queries.clone_from(&query.queries);
        let concerns =
            |of: &Option<(Name, RecordType)>| of.as_ref().is_none_or(|of| *of == (asked.clone(), record_type));
        match self.trouble.iter().find(|(of, _)| concerns(of)).map(|(_, trouble)| *trouble) {
            Some(Trouble::Silence) => return None,
            Some(Trouble::Code(code)) => {
                answer.metadata.response_code = code;
                return answer.to_vec().ok();
            }
            Some(Trouble::Truncate) if !by_tcp => {
                answer.metadata.truncation = true;
                return answer.to_vec().ok();
            }
            Some(Trouble::Noise) => {
                let mut bytes = answer.to_vec().ok()?;
                // The header promises an answer; what follows the question is none.
                bytes[7] = 1;
                bytes.extend([0xc0, 0x0c, 0x00, 0x21, 0x00, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f]);
                return Some(bytes);
            }
            Some(Trouble::Truncate) | None => {}
        }
        // As a recursive resolver does: the aliases, then what they lead to.
        let mut at = asked;
        for _ in 0..8 {
            let own: Vec<&Record> = self.records.iter().filter(|record| record.name == at).collect();
            if own.is_empty() && answer.answers.is_empty() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            answer.add_answers(own.iter().filter(|own| own.record_type() == record_type).map(|own| (*own).clone()));
            let alias = own.iter().find_map(|own| match &own.data {
                RData::CNAME(CNAME(target)) => Some(((*own).clone(), target.clone())),
                _ => None,
            });
            let Some((record, target)) = alias else { break };
            answer.add_answer(record);
            at = target;
        }
        answer.to_vec().ok()
    }
}

fn name(host: &str) -> Name {
    Name::from_ascii(format!("{}.", host.trim_end_matches('.'))).unwrap()
}
