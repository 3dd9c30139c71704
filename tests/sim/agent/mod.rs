//! A strict user agent: calls and is called, retransmits by the timers of RFC 3261, and refuses what it should not have got.

mod called;
mod calling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use sipedge_proxy::engine::Transport;

use crate::plan::{MS, Outcome, Part, Plan, Record, SECOND};
use crate::profile::{edge, transport_suffix};
use crate::wire::{Msg, hop, name_of, transport_of, uri_of};

const T1: u64 = 500 * MS;
const T2: u64 = 4 * SECOND;
const LIFETIME: u64 = 64 * T1;
/// A caller waits this long for an answer, then cancels: longer than the edge's own Timer C.
const PATIENCE: u64 = 60 * SECOND;
/// Port of the Contact after it has moved, and of a carrier's own proxy: all on the agent's address.
const MOVED_PORT: u16 = 5064;
const PROXY_PORT: u16 = 5072;
/// How often a BYE is sent anew when its connection breaks.
const BYES: u32 = 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A message that an agent sends: a datagram, or one for this connection, or else for one to that address.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub transport: Transport,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub stream: Option<u64>,
    pub bytes: Vec<u8>,
}

/// How a message came to an agent.
#[derive(Debug, Clone, Copy)]
pub struct Came {
    pub transport: Transport,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub stream: Option<u64>,
}

/// What an agent sees of the world.
pub struct Context<'a> {
    pub now: u64,
    /// Address of the edge.
    pub edge: IpAddr,
    /// Host that initial requests to each callee are sent to by the edge.
    pub hosts: &'a BTreeMap<SocketAddr, String>,
    pub plans: &'a [Plan],
    pub records: &'a mut [Record],
    pub out: &'a mut Vec<Parcel>,
}

pub struct Agent {
    pub address: SocketAddr,
    /// Place among those that are called.
    callee: Option<usize>,
    serial: u64,
    clients: BTreeMap<Key, Client>,
    servers: BTreeMap<Key, Server>,
    dialogs: BTreeMap<DialogKey, Dialog>,
    branches: BTreeSet<String>,
    agenda: BTreeMap<(u64, u64), Action>,
}

/// Branch and method.
type Key = (String, String);
/// Call and remote tag.
type DialogKey = (usize, String);

struct Client {
    call: usize,
    dialog: Option<DialogKey>,
    request: Msg,
    interval: u64,
    until: u64,
    is_calling: bool,
    code: u16,
    ack: Option<Msg>,
    wants_cancel: bool,
    has_cancelled: bool,
}

struct Server {
    call: usize,
    request: Msg,
    came: Came,
    last: Option<Msg>,
    code: u16,
    interval: u64,
    until: u64,
    acked: bool,
}

struct Dialog {
    is_caller: bool,
    /// Of a further answer, which is ended at once.
    is_further: bool,
    local: String,
    remote: String,
    routes: Vec<String>,
    target: String,
    number: u32,
    contact: SocketAddr,
    /// The ACKs of its INVITEs, by their numbers.
    acks: BTreeMap<u32, Msg>,
    is_over: bool,
    is_reinviting: bool,
    byes: u32,
}

#[derive(Debug, Clone)]
enum Action {
    Call(usize),
    Ring(Key),
    Final(Key),
    Cancel(usize),
    GiveUp(usize),
    Reinvite(DialogKey),
    HangUp(DialogKey),
    Resend(Key),
    Repeat(Key),
}

impl Agent {
    pub fn new(address: SocketAddr, callee: Option<usize>) -> Self {
        Self {
            address,
            callee,
            serial: 0,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            branches: BTreeSet::new(),
            agenda: BTreeMap::new(),
        }
    }

    pub fn will_call(&mut self, call: usize, at: u64) {
        self.plan_action(at, Action::Call(call));
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    pub fn handle_timeout(&mut self, context: &mut Context<'_>) {
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= context.now) {
            match entry.remove() {
                Action::Call(call) => self.call(context, call),
                Action::Ring(key) => self.respond(context, &key, 180, "Ringing"),
                Action::Final(key) => {
                    let call = self.servers.get(&key).map(|server| server.call);
                    match call.and_then(|call| self.part(context.plans, call)).map(|part| part.outcome) {
                        Some(Outcome::Refuse(code, _)) => self.respond(context, &key, code, "Refused"),
                        _ => self.respond(context, &key, 200, "OK"),
                    }
                }
                Action::Cancel(call) => self.cancel(context, call),
                Action::GiveUp(call) => self.give_up(context, call),
                Action::Reinvite(key) => self.reinvite(context, &key),
                Action::HangUp(key) => self.hang_up(context, &key),
                Action::Resend(key) => self.resend(context, key),
                Action::Repeat(key) => self.repeat(context, key),
            }
        }
    }

    pub fn handle(&mut self, context: &mut Context<'_>, came: Came, bytes: &[u8]) -> Result<(), String> {
        let msg = Msg::parse(bytes)?;
        if msg.method() == "OPTIONS" {
            return self.answer_probe(context, came, &msg);
        }
        let call = msg.call().filter(|call| *call < context.plans.len()).ok_or("a Call-ID that nobody has made")?;
        if msg.is_request() { self.request(context, call, came, msg) } else { self.response(context, call, came, &msg) }
    }

    /// A connection to the edge is over: a BYE that waits for its answer is sent again, by another one.
    pub fn broken(&mut self, context: &mut Context<'_>, transport: Transport) {
        let is_lost = |(_, client): &(&Key, &Client)| {
            client.code < 200 && client.dialog.is_some() && transport_of(&client.request.top_via()) == Some(transport)
        };
        let lost: Vec<Key> = self.clients.iter().filter(is_lost).map(|(key, _)| key.clone()).collect();
        for key in lost {
            let Some(Client { dialog: Some(of), .. }) = self.clients.remove(&key) else { continue };
            let Some(dialog) = self.dialogs.get_mut(&of) else { continue };
            dialog.is_reinviting &= key.1 != "INVITE";
            if key.1 == "BYE" {
                dialog.is_over = false;
                self.plan_action(context.now + SECOND, Action::HangUp(of));
            }
        }
    }

    /// The agent has died, and has come back without what it knew.
    pub fn forget(&mut self) {
        self.clients.clear();
        self.servers.clear();
        self.dialogs.clear();
        self.agenda.retain(|_, action| matches!(action, Action::Call(_)));
    }

    /// What is left of calls that nobody else knows of: an INVITE that rings, a dialog that nobody has ended.
    pub fn ghosts(&self) -> Option<String> {
        let rings = |(key, server): &(&Key, &Server)| key.1 == "INVITE" && (1..200).contains(&server.code);
        let ringing = self.servers.iter().find(rings).map(|(_, server)| format!("call {} rings", server.call));
        let up = self.dialogs.iter().find(|(_, dialog)| !dialog.is_over);
        let left = ringing.or_else(|| up.map(|(key, _)| format!("call {} is up", key.0)));
        left.map(|left| format!("{left} at {} in the end", self.address))
    }

    fn answer_probe(&self, context: &mut Context<'_>, came: Came, msg: &Msg) -> Result<(), String> {
        let host = context.hosts.get(&self.address).ok_or("OPTIONS to somebody who is not called")?;
        if !msg.is_request() || msg.uri() != format!("sip:{host}") {
            return Err(format!("{} at {}, which is {host}", msg.start, self.address));
        }
        let mut headers = msg.headers.clone();
        headers.retain(|(name, _)| ["Via", "From", "To", "Call-ID", "CSeq"].contains(&name.as_str()));
        for (name, value) in &mut headers {
            match name.as_str() {
                "To" => value.push_str(";tag=options"),
                "Via" => *value = value.replacen(";rport", &format!(";rport={}", came.from.port()), 1),
                _ => {}
            }
        }
        headers.push(("Content-Length".into(), "0".into()));
        let response = Msg { start: "SIP/2.0 200 OK".into(), headers, body: Vec::new() };
        context.out.push(Self::reply(&came, &response));
        Ok(())
    }

    fn part<'a>(&self, plans: &'a [Plan], call: usize) -> Option<&'a Part> {
        plans[call].parts.get(self.callee?)
    }

    fn reinvite(&mut self, context: &mut Context<'_>, key: &DialogKey) {
        let Some(dialog) = self.dialogs.get_mut(key).filter(|dialog| !dialog.is_over) else { return };
        dialog.is_reinviting = true;
        if context.plans[key.0].reinvite.is_some_and(|(_, moves)| moves) {
            dialog.contact.set_port(MOVED_PORT);
        }
        let request = self.in_dialog(context, key, "INVITE", None);
        self.open(context, key.0, Some(key.clone()), request);
    }

    fn hang_up(&mut self, context: &mut Context<'_>, key: &DialogKey) {
        let Some(dialog) = self.dialogs.get_mut(key).filter(|dialog| !dialog.is_over) else { return };
        if dialog.is_reinviting {
            self.plan_action(context.now + 3 * SECOND, Action::HangUp(key.clone()));
            return;
        }
        dialog.is_over = true;
        dialog.byes += 1;
        if dialog.byes <= BYES {
            let request = self.in_dialog(context, key, "BYE", None);
            self.open(context, key.0, Some(key.clone()), request);
        }
    }

    /// The call is up: what this side does with it.
    fn talk(&mut self, context: &Context<'_>, key: &DialogKey, is_caller: bool) {
        let plan = &context.plans[key.0];
        if plan.caller_hangs_up == is_caller {
            self.plan_action(context.now + plan.talk + SECOND, Action::HangUp(key.clone()));
        }
        if plan.reinvite.is_some_and(|(by_caller, _)| by_caller == is_caller) {
            self.plan_action(context.now + plan.talk / 2, Action::Reinvite(key.clone()));
        }
    }

    /// The URI of a Contact, which the edge may take for an address of this call from now on.
    fn contact(context: &mut Context<'_>, call: usize, is_caller: bool, at: (Transport, SocketAddr)) -> String {
        let (transport, address) = at;
        let (caller, callee) = context.plans[call].named;
        let is_named = if is_caller { caller } else { callee };
        let host = match (is_named, address.port()) {
            (true, 5060) => name_of(address.ip()),
            (true, port) => format!("{}:{port}", name_of(address.ip())),
            (false, _) => address.to_string(),
        };
        let uri = format!("sip:contact@{host}{}", transport_suffix(transport));
        let place = hop(&uri).map(|(_, address)| address);
        context.records[call].places.extend(place);
        uri
    }

    // Transactions and messages.

    fn open(&mut self, context: &mut Context<'_>, call: usize, dialog: Option<DialogKey>, request: Msg) {
        let key = (request.branch(), request.method().to_owned());
        self.send(context, &request);
        let client = Client {
            call,
            dialog,
            request,
            interval: T1,
            until: context.now + LIFETIME,
            is_calling: true,
            code: 0,
            ack: None,
            wants_cancel: false,
            has_cancelled: false,
        };
        self.clients.insert(key.clone(), client);
        self.plan_action(context.now + T1, Action::Resend(key));
    }

    fn resend(&mut self, context: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(&key).filter(|client| client.code < 200) else { return };
        let (call, dialog) = (client.call, client.dialog.clone());
        let is_first_invite = client.request.start.starts_with("INVITE sip:+1555");
        if !client.is_calling && is_first_invite {
            return;
        }
        if client.until <= context.now {
            self.clients.remove(&key);
            if is_first_invite {
                context.records[call].caller_timed_out = true;
            }
            if let Some(dialog) = dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)).filter(|_| key.1 == "INVITE")
            {
                dialog.is_reinviting = false;
            }
            return;
        }
        let request = client.request.clone();
        let is_calling = client.is_calling && transport_of(&request.top_via()) == Some(Transport::Udp);
        client.interval = if key.1 == "INVITE" { client.interval * 2 } else { (client.interval * 2).min(T2) };
        let at = (context.now + client.interval).min(client.until);
        if is_calling {
            self.send(context, &request);
        }
        self.plan_action(at, Action::Resend(key));
    }

    fn in_dialog(&mut self, context: &mut Context<'_>, key: &DialogKey, method: &str, number: Option<u32>) -> Msg {
        let call = key.0;
        let own = self.address;
        let transport = self.dialogs[key].transport();
        let via = self.new_via(transport, call.is_multiple_of(2));
        let Some(dialog) = self.dialogs.get_mut(key) else { unreachable!("only called with a dialog") };
        let number = number.unwrap_or_else(|| {
            dialog.number += 1;
            dialog.number
        });
        let mut headers = vec![("Via".to_owned(), via)];
        if call.is_multiple_of(3) {
            headers.push(("Route".into(), dialog.routes.join(", ")));
        } else {
            headers.extend(dialog.routes.iter().map(|route| ("Route".to_owned(), route.clone())));
        }
        let caller = if dialog.is_caller { own } else { crate::wire::address(&dialog.remote).unwrap_or(own) };
        headers.extend([
            ("Max-Forwards".to_owned(), "70".to_owned()),
            ("From".into(), dialog.local.clone()),
            ("To".into(), dialog.remote.clone()),
            ("Call-ID".into(), format!("call-{call}-{}", caller.ip())),
            ("CSeq".into(), format!("{number} {method}")),
        ]);
        if method == "INVITE" {
            let contact = Self::contact(context, call, dialog.is_caller, (transport, dialog.contact));
            headers.push(("Contact".into(), format!("<{contact}>")));
        }
        headers.push(("Content-Length".into(), "0".into()));
        Msg { start: format!("{method} {} SIP/2.0", dialog.target), headers, body: Vec::new() }
    }

    /// To the first hop, which is the edge: by Route or, for the first INVITE, since the carrier sends it there.
    fn send(&self, context: &mut Context<'_>, request: &Msg) {
        let transport = transport_of(&request.top_via()).unwrap_or(Transport::Udp);
        let bytes = request.to_bytes();
        context.out.push(Parcel { transport, from: self.address, to: edge(transport), stream: None, bytes });
    }

    /// A response, by the way that its request came; by the request's sent-by when that connection is gone.
    fn reply(came: &Came, response: &Msg) -> Parcel {
        let is_datagram = came.transport == Transport::Udp;
        let to = if is_datagram { came.from } else { edge(came.transport) };
        let from = came.to;
        Parcel { transport: came.transport, from, to, stream: came.stream, bytes: response.to_bytes() }
    }

    fn new_via(&mut self, transport: Transport, rport: bool) -> String {
        self.serial += 1;
        let branch = format!("z9hG4bK{}x{}", self.address.ip().to_string().replace('.', "-"), self.serial);
        self.branches.insert(branch.clone());
        let rport = if rport { ";rport" } else { "" };
        format!("SIP/2.0/{} {};branch={branch}{rport}", transport.via(), self.address)
    }

    fn plan_action(&mut self, at: u64, action: Action) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), action);
    }
}

impl Dialog {
    fn new(is_caller: bool, local: &str, remote: &str, routes: Vec<String>, target: &str, own: SocketAddr) -> Self {
        let mut dialog = Self {
            is_caller,
            is_further: false,
            local: local.to_owned(),
            remote: remote.to_owned(),
            routes,
            target: uri_of(target).to_owned(),
            number: if is_caller { 1 } else { 100 },
            contact: own,
            acks: BTreeMap::new(),
            is_over: false,
            is_reinviting: false,
            byes: 0,
        };
        // The proxy of this side's own carrier is part of this agent: it needs no hop.
        let is_own = |route: &String| hop(route).is_some_and(|(_, address)| address.ip() == own.ip());
        while dialog.routes.first().is_some_and(is_own) {
            dialog.routes.remove(0);
        }
        dialog
    }

    /// How the edge is reached.
    fn transport(&self) -> Transport {
        self.routes.first().and_then(|route| hop(route)).map_or(Transport::Udp, |(transport, _)| transport)
    }
}
