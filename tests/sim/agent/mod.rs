//! A strict user agent: calls and is called, retransmits by the timers of RFC 3261, and refuses what it should not have got.

mod called;
mod calling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::plan::{MS, Outcome, Plan, Record, SECOND};
use crate::wire::{Msg, address};

const T1: u64 = 500 * MS;
const T2: u64 = 4 * SECOND;
const LIFETIME: u64 = 64 * T1;
/// A caller waits this long for an answer, then cancels: longer than the edge's own Timer C.
const PATIENCE: u64 = 60 * SECOND;
/// Port of the Contact after it has moved, and of a carrier's own proxy: all on the agent's address.
const MOVED_PORT: u16 = 5064;
const PROXY_PORT: u16 = 5072;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What an agent sees of the world.
pub struct Context<'a> {
    pub now: u64,
    pub edge: SocketAddr,
    /// Host that initial requests are sent to by the edge.
    pub target_host: &'a str,
    pub plans: &'a [Plan],
    pub records: &'a mut [Record],
    pub out: &'a mut Vec<Datagram>,
}

pub struct Agent {
    pub address: SocketAddr,
    serial: u64,
    clients: BTreeMap<Key, Client>,
    servers: BTreeMap<Key, Server>,
    dialogs: BTreeMap<usize, Dialog>,
    branches: BTreeSet<String>,
    agenda: BTreeMap<(u64, u64), Action>,
}

/// Branch and method.
type Key = (String, String);

struct Client {
    call: usize,
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
    reply_from: SocketAddr,
    reply_to: SocketAddr,
    last: Option<Msg>,
    code: u16,
    interval: u64,
    until: u64,
    acked: bool,
}

struct Dialog {
    is_caller: bool,
    local: String,
    remote: String,
    routes: Vec<String>,
    target: String,
    number: u32,
    contact: SocketAddr,
    ack: Option<Msg>,
    is_over: bool,
    is_reinviting: bool,
}

#[derive(Debug, Clone)]
enum Action {
    Call(usize),
    Ring(Key),
    Final(Key),
    Cancel(usize),
    GiveUp(usize),
    Reinvite(usize),
    HangUp(usize),
    Resend(Key),
    Repeat(Key),
}

impl Agent {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
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
                Action::Final(key) => match context.plans[self.servers[&key].call].outcome {
                    Outcome::Refuse(code, _) => self.respond(context, &key, code, "Refused"),
                    _ => self.respond(context, &key, 200, "OK"),
                },
                Action::Cancel(call) => self.cancel(context, call),
                Action::GiveUp(call) => self.give_up(context, call),
                Action::Reinvite(call) => self.reinvite(context, call),
                Action::HangUp(call) => self.hang_up(context, call),
                Action::Resend(key) => self.resend(context, key),
                Action::Repeat(key) => self.repeat(context, key),
            }
        }
    }

    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), String> {
        let msg = Msg::parse(bytes)?;
        let call = msg.call().filter(|call| *call < context.plans.len()).ok_or("a Call-ID that nobody has made")?;
        if msg.is_request() {
            self.request(context, call, from, to, msg)
        } else {
            self.response(context, call, to, &msg)
        }
    }

    fn reinvite(&mut self, context: &mut Context<'_>, call: usize) {
        let Some(dialog) = self.dialogs.get_mut(&call).filter(|dialog| !dialog.is_over) else { return };
        dialog.is_reinviting = true;
        if context.plans[call].reinvite.is_some_and(|(_, moves)| moves) {
            dialog.contact.set_port(MOVED_PORT);
            context.records[call].places.insert(dialog.contact);
        }
        let request = self.in_dialog(call, "INVITE", None);
        self.open(context, call, request);
    }

    fn hang_up(&mut self, context: &mut Context<'_>, call: usize) {
        let Some(dialog) = self.dialogs.get_mut(&call).filter(|dialog| !dialog.is_over) else { return };
        if dialog.is_reinviting {
            self.plan_action(context.now + 3 * SECOND, Action::HangUp(call));
            return;
        }
        dialog.is_over = true;
        let request = self.in_dialog(call, "BYE", None);
        self.open(context, call, request);
    }

    /// The call is up: what this side does with it.
    fn talk(&mut self, context: &Context<'_>, call: usize, is_caller: bool) {
        let plan = &context.plans[call];
        if plan.caller_hangs_up == is_caller {
            self.plan_action(context.now + plan.talk + SECOND, Action::HangUp(call));
        }
        if plan.reinvite.is_some_and(|(by_caller, _)| by_caller == is_caller) {
            self.plan_action(context.now + plan.talk / 2, Action::Reinvite(call));
        }
    }

    // Transactions and messages.

    fn open(&mut self, context: &mut Context<'_>, call: usize, request: Msg) {
        let key = (request.branch(), request.method().to_owned());
        self.send(context, &request);
        let client = Client {
            call,
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
        let call = client.call;
        let is_first_invite = client.request.start.starts_with("INVITE sip:+1555");
        if !client.is_calling && is_first_invite {
            return;
        }
        if client.until <= context.now {
            self.clients.remove(&key);
            if is_first_invite {
                context.records[call].caller_timed_out = true;
            }
            if let Some(dialog) = self.dialogs.get_mut(&call).filter(|_| key.1 == "INVITE") {
                dialog.is_reinviting = false;
            }
            return;
        }
        let request = client.request.clone();
        let is_calling = client.is_calling;
        client.interval = if key.1 == "INVITE" { client.interval * 2 } else { (client.interval * 2).min(T2) };
        let at = (context.now + client.interval).min(client.until);
        if is_calling {
            self.send(context, &request);
        }
        self.plan_action(at, Action::Resend(key));
    }

    fn in_dialog(&mut self, call: usize, method: &str, number: Option<u32>) -> Msg {
        let via = self.new_via(call.is_multiple_of(2));
        let own = self.address;
        let Some(dialog) = self.dialogs.get_mut(&call) else { unreachable!("only called with a dialog") };
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
        let caller = if dialog.is_caller { own } else { address(&dialog.remote).unwrap_or(own) };
        headers.extend([
            ("Max-Forwards".to_owned(), "70".to_owned()),
            ("From".into(), dialog.local.clone()),
            ("To".into(), dialog.remote.clone()),
            ("Call-ID".into(), format!("call-{call}-{}", caller.ip())),
            ("CSeq".into(), format!("{number} {method}")),
        ]);
        if method == "INVITE" {
            headers.push(("Contact".into(), format!("<sip:moved@{}>", dialog.contact)));
        }
        headers.push(("Content-Length".into(), "0".into()));
        Msg { start: format!("{method} {} SIP/2.0", dialog.target), headers, body: Vec::new() }
    }

    /// To the first hop: the edge, by Route or, for the first INVITE, since the carrier sends it there.
    fn send(&self, context: &mut Context<'_>, request: &Msg) {
        let to = request.list("Route").first().and_then(|route| address(route)).unwrap_or(context.edge);
        context.out.push(Datagram { from: self.address, to, bytes: request.to_bytes() });
    }

    fn new_via(&mut self, rport: bool) -> String {
        self.serial += 1;
        let branch = format!("z9hG4bK{}x{}", self.address.ip().to_string().replace('.', "-"), self.serial);
        self.branches.insert(branch.clone());
        format!("SIP/2.0/UDP {};branch={branch}{}", self.address, if rport { ";rport" } else { "" })
    }

    fn plan_action(&mut self, at: u64, action: Action) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), action);
    }
}

impl Dialog {
    /// The proxy of this side's own carrier is part of this agent: it needs no hop.
    fn leave_own_proxies(&mut self, own: SocketAddr) {
        while self.routes.first().and_then(|route| address(route)).is_some_and(|route| route.ip() == own.ip()) {
            self.routes.remove(0);
        }
    }
}
