//! From a configuration to what an engine needs to run, with every reason why it cannot.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipedge_sip::transaction::Timers;
use sipedge_sip::uri::{Uri, parse_ip};
use sipedge_sip::via::Via;

use super::answerer;
use super::flow::{Query, Server, TlsPeer, Transport};
use super::keys::{Key, TokenKeys};
use super::sources::Sources;
use super::token::{SigningKey, fingerprint};
use crate::config::{self, Config, Probe, Select, Trust};

/// A checked configuration with everything that only the instance knows, and the lookup tables made from it.
#[derive(Debug)]
pub struct Setup {
    /// The configuration, as checked.
    pub config: Config,
    pub(super) ingress: SocketAddr,
    pub(super) egress: SocketAddr,
    ingress_text: String,
    egress_text: String,
    /// Host that peers are told, an IPv6 address in brackets.
    pub(super) advertised: String,
    /// Host and, unless it is a name with the default port, port: what Via and Record-Route say over UDP and TCP.
    sent_by: String,
    /// The same over TLS.
    sent_by_tls: String,
    pub(super) timers: Timers,
    pub(super) trunks: Vec<Trunk>,
    pub(super) branch_key: Key,
    pub(super) token_keys: Vec<SigningKey>,
    /// This shard's part of the budgets.
    pub(super) transactions: usize,
    pub(super) message_bytes: u64,
    pub(super) counted_calls: usize,
    sources: Sources,
}

/// What only the instance knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Private address and port of the ingress socket.
    pub ingress: SocketAddr,
    /// Private address and port of the egress socket.
    pub egress: SocketAddr,
    /// Address or host name that Via and Record-Route carry.
    pub advertised: String,
    /// Engines that this instance runs: each gets its part of the budgets.
    pub shards: usize,
}

/// A configuration that cannot be used, all reasons at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", reasons.join("; "))]
pub struct SetupError {
    /// Each: the setting, what is wrong, what would be right.
    pub reasons: Vec<String>,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) name: String,
    /// What tokens carry of its name.
    pub(super) fingerprint: u16,
    /// Index of the trunk that its calls go to.
    pub(super) destination: Option<usize>,
    pub(super) targets: Vec<Target>,
    pub(super) select: Select,
    /// Final response codes after which a call in set-up goes on to the next destination, sorted.
    pub(super) failover: Vec<u16>,
    /// Destinations that one call tries at most.
    pub(super) attempts: u8,
    pub(super) probe: Option<Probe>,
    pub(super) trust: Trust,
    /// Whether a limit counts its calls.
    pub(super) counts_calls: bool,
}

/// Where calls to a trunk go.
#[derive(Debug)]
pub(super) struct Target {
    /// As in the configuration.
    pub(super) uri: String,
    /// `host[:port]` as in the configuration, and the transport if it names one: what the Request-URI gets.
    pub(super) host_port: String,
    pub(super) lookup: Lookup,
    pub(super) priority: u16,
    pub(super) weight: u16,
    /// Whether its URI names no transport.
    pub(super) leaves_transport_open: bool,
    /// What it draws with when a call chooses among targets: of its URI, so that its place in the list does not matter.
    pub(super) hash: u64,
    /// Whom its servers have to prove to be over TLS.
    pub(super) peer: Arc<TlsPeer>,
}

/// How the servers of a URI are found (RFC 3263 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The URI says it all.
    Address(Server),
    /// Name servers say it.
    Name(Query),
}

impl Lookup {
    /// Whether nothing but TLS leads there.
    pub(super) fn is_secure(&self) -> bool {
        match self {
            Self::Address(server) => server.transport == Transport::Tls,
            Self::Name(query) => query.secure,
        }
    }

    /// `None`: the URI names a transport that this edge does not speak, or its host is no text.
    pub(super) fn of(uri: &Uri<'_>) -> Option<Self> {
        let named = match uri.parameter(b"transport") {
            Some(value) => Some(Transport::of_parameter(value)?),
            None => None,
        };
        let secure = uri.secure || named == Some(Transport::Tls);
        // A `sips:` URI leaves the transport open as far as the lookup goes (RFC 3263 §4.1): NAPTR may name the service.
        let transport = named.map(|named| if secure { Transport::Tls } else { named });
        // RFC 3263 §4: maddr takes the host's place.
        let host = if uri.parameters.is_empty() { None } else { uri.maddr() }.unwrap_or(uri.host);
        Some(match sipedge_sip::uri::parse_ip(host) {
            Some(ip) => {
                let transport = transport.unwrap_or(if secure { Transport::Tls } else { Transport::Udp });
                let address = SocketAddr::new(ip, uri.port.unwrap_or(transport.default_port()));
                Self::Address(Server { priority: 0, weight: 1, transport, address })
            }
            None => {
                let host = std::str::from_utf8(host).ok()?.to_ascii_lowercase();
                Self::Name(Query { host, port: uri.port, transport, secure })
            }
        })
    }
}

impl Setup {
    /// Checks `config` and `keys` and builds the lookup tables of all shards.
    pub fn new(config: Config, place: &Place, keys: &TokenKeys) -> Result<Self, SetupError> {
        let mut reasons = Vec::new();
        check_scalars(&config, &mut reasons);
        let advertised = match place.advertised.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => place.advertised.clone(),
        };
        let probe = format!("sip:{advertised}");
        if Uri::parse(probe.as_bytes()).is_none_or(|uri| uri.port.is_some() || uri.host.len() != advertised.len()) {
            reasons.push(format!("advertise: `{advertised}` is neither an address nor a host name"));
        }
        let is_name = place.advertised.parse::<IpAddr>().is_err();
        let port = place.ingress.port();
        // A port behind a name would keep peers from looking up its SRV records.
        let sent_by = |transport: Transport, port: u16| match is_name && port == transport.default_port() {
            true => advertised.clone(),
            false => format!("{advertised}:{port}"),
        };
        let sent_by_tls = sent_by(Transport::Tls, tls_port(&config));
        let sent_by = sent_by(Transport::Udp, port);

        let trunks = trunks(&config, &mut reasons);
        let sources = sources(&config, &mut reasons);
        let (branch_key, token_keys) = signing_keys(keys, &mut reasons);
        let shards = place.shards.max(1);
        let timers = &config.timers;
        let timers = Timers {
            t1: millis(timers.t1_ms),
            t2: millis(timers.t2_ms),
            t4: millis(timers.t4_ms),
            response: millis(timers.response_ms),
            invite: millis(timers.invite_ms),
        };
        match branch_key {
            Some(branch_key) if reasons.is_empty() => Ok(Self {
                ingress: place.ingress,
                egress: place.egress,
                ingress_text: place.ingress.ip().to_string(),
                egress_text: place.egress.ip().to_string(),
                advertised,
                sent_by,
                sent_by_tls,
                timers,
                trunks,
                branch_key,
                token_keys,
                // A shard that has no part of a budget would refuse everything.
                transactions: (config.budgets.transactions as usize / shards).max(4),
                message_bytes: config.budgets.message_bytes / shards as u64,
                counted_calls: (config.budgets.counted_calls as usize / shards).max(1),
                sources,
                config,
            }),
            _ => Err(SetupError { reasons }),
        }
    }

    /// Every name that a destination has.
    pub(super) fn queries(&self) -> impl Iterator<Item = &Query> {
        self.trunks.iter().flat_map(|trunk| &trunk.targets).filter_map(|target| match &target.lookup {
            Lookup::Name(query) => Some(query),
            Lookup::Address(_) => None,
        })
    }

    /// Whether `ip` is a source of any trunk.
    pub fn has_source(&self, ip: IpAddr) -> bool {
        self.trunk_of(ip).is_some()
    }

    /// Whether `ip` is a peer of the configuration: a source of a trunk, or a target that has an address and no name.
    pub fn knows(&self, ip: IpAddr) -> bool {
        let mut targets = self.trunks.iter().flat_map(|trunk| &trunk.targets);
        self.trunk_of(ip).is_some()
            || targets.any(|target| matches!(&target.lookup, Lookup::Address(server) if server.address.ip() == ip))
    }

    /// The trunk that `source` belongs to: the longest prefix over all trunks.
    pub(super) fn trunk_of(&self, source: IpAddr) -> Option<usize> {
        self.sources.trunk_of(source)
    }

    /// The trunk whose name has this fingerprint.
    pub(super) fn trunk_with(&self, fingerprint: u16) -> Option<usize> {
        self.trunks.iter().position(|trunk| trunk.fingerprint == fingerprint)
    }

    /// What a trunk's word is taken for; nothing, when it is none.
    pub(super) fn trust_of(&self, trunk: Option<usize>) -> Trust {
        trunk.and_then(|trunk| self.trunks.get(trunk)).map(|trunk| trunk.trust).unwrap_or_default()
    }

    /// What Via and Record-Route say of this edge over a transport: host and, unless it is a name with the default port, port.
    pub(super) fn sent_by(&self, transport: Transport) -> &str {
        if transport == Transport::Tls { &self.sent_by_tls } else { &self.sent_by }
    }

    /// Whether a URI names this edge: by its advertised host or a bound address, and the port of a listener.
    pub(super) fn is_ours(&self, uri: &Uri<'_>) -> bool {
        if !self.is_our_host(uri.host) {
            return false;
        }
        let is_tls = || uri.secure || uri.transport().is_some_and(|value| value.eq_ignore_ascii_case(b"tls"));
        let default = || if is_tls() { Transport::Tls } else { Transport::Udp }.default_port();
        self.has_port(uri.port.unwrap_or_else(default))
    }

    fn is_our_host(&self, host: &[u8]) -> bool {
        // Of an IPv4 address there is one text; of an IPv6 address, which has brackets, many.
        let is_address = |ip: IpAddr| ip == self.ingress.ip() || ip == self.egress.ip();
        let texts = [&self.advertised, &self.ingress_text, &self.egress_text];
        texts.into_iter().any(|text| host.eq_ignore_ascii_case(text.as_bytes()))
            || host.starts_with(b"[") && parse_ip(host).is_some_and(is_address)
    }

    /// The branch parameter of a Via, if it is one of ours. (As nearly all have it, compared as a whole; else taken apart.)
    pub(super) fn own_branch<'a>(&self, via: &'a [u8]) -> Option<&'a [u8]> {
        let as_written = |text: &'a [u8]| text.strip_prefix(b"SIP/2.0/UDP ")?.strip_prefix(self.sent_by.as_bytes());
        if let Some(parameters @ [b';', ..]) = as_written(via) {
            return Via::branch_in(parameters);
        }
        Via::parse(via).filter(|via| self.is_our_via(via))?.branch()
    }

    /// Whether the sent-by of a Via is what we write there.
    pub(super) fn is_our_via(&self, via: &Via<'_>) -> bool {
        let is_tls = via.transport.eq_ignore_ascii_case(b"tls");
        let (transport, ours) = match is_tls {
            true => (Transport::Tls, tls_port(&self.config)),
            false => (Transport::Udp, self.ingress.port()),
        };
        via.port.unwrap_or(transport.default_port()) == ours
            && via.host.eq_ignore_ascii_case(self.advertised.as_bytes())
    }

    fn has_port(&self, port: u16) -> bool {
        let is_tls = self.config.listen.tls.is_some() && port == tls_port(&self.config);
        is_tls || port == self.ingress.port() || port == self.egress.port()
    }
}

fn check_scalars(config: &Config, reasons: &mut Vec<String>) {
    let mut check = |is_right: bool, reason: &str| {
        if !is_right {
            reasons.push(reason.to_owned());
        }
    };
    let (timers, budgets, listen) = (&config.timers, &config.budgets, &config.listen);
    check(config.version == config::VERSION, "version: this build reads version 1");
    check(listen.ingress_port != 0, "listen.ingress_port: 0 is no port that a peer could be told");
    check(listen.egress_port != 0, "listen.egress_port: 0 is no port that a peer could be told");
    check(timers.t1_ms > 0, "timers.t1_ms: must be at least 1 (RFC 3261 recommends 500)");
    check(timers.t2_ms >= timers.t1_ms, "timers.t2_ms: must not be below t1_ms");
    check(timers.response_ms >= timers.t1_ms, "timers.response_ms: must not be below t1_ms");
    check(timers.invite_ms >= timers.response_ms, "timers.invite_ms: must not be below response_ms");
    check(budgets.transactions >= 100, "budgets.transactions: must be at least 100");
    check(budgets.message_bytes >= 1 << 20, "budgets.message_bytes: must be at least 1048576 (1 MiB)");
    check(timers.call_ms > 0, "timers.call_ms: must be at least 1, else limits on calls would count nothing");
    check(!config.routes.is_empty(), "routes: there is none, so no call could go anywhere");
}

fn trunks(config: &Config, reasons: &mut Vec<String>) -> Vec<Trunk> {
    let index = |name: &str| config.trunks.iter().position(|trunk| trunk.name == name);
    let mut trunks: Vec<Trunk> = Vec::new();
    for trunk in &config.trunks {
        let fingerprint = fingerprint(trunk.name.as_bytes());
        if index(&trunk.name) != Some(trunks.len()) {
            reasons.push(format!("trunks: the name `{}` is there twice", trunk.name));
        } else if trunks.iter().any(|other| other.fingerprint == fingerprint) {
            reasons.push(format!(
                "trunks: `{}` looks like another trunk's name in 16 bits; give it another name",
                trunk.name
            ));
        } else if fingerprint == answerer::party() {
            reasons.push(format!("trunks: `{}` looks like the answerer in 16 bits; give it another name", trunk.name));
        }
        check_calls(trunk, reasons);
        let mut targets = Vec::new();
        for target in &trunk.targets {
            match Target::new(target, &trunk.name) {
                Some(target) => targets.push(target),
                None => reasons.push(format!(
                    "trunks.{}.targets: `{}` is not a URI such as sip:host, sip:host:5060 or sip:host;transport=tcp",
                    trunk.name, target.uri
                )),
            }
        }
        let mut failover = trunk.failover.codes.clone();
        failover.sort_unstable();
        trunks.push(Trunk {
            name: trunk.name.clone(),
            fingerprint,
            destination: None,
            targets,
            select: trunk.select,
            failover,
            attempts: trunk.failover.attempts,
            probe: trunk.probe.clone(),
            trust: trunk.trust,
            counts_calls: trunk.limits.calls.is_some(),
        });
    }
    for route in &config.routes {
        match (index(&route.from), index(&route.to)) {
            (Some(from), Some(to)) => {
                if trunks.get(to).is_some_and(|trunk| trunk.targets.is_empty()) {
                    reasons.push(format!("routes: calls go to `{}`, which has no targets", route.to));
                }
                let Some(trunk) = trunks.get_mut(from) else { continue };
                if trunk.destination.replace(to).is_some() {
                    reasons.push(format!("routes: `{}` has two routes; which one should its calls take?", route.from));
                }
            }
            (from, _) => {
                let missing = if from.is_none() { &route.from } else { &route.to };
                reasons.push(format!("routes: there is no trunk `{missing}`"));
            }
        }
    }
    trunks
}

/// What becomes of calls to a trunk: targets, failover, probes.
fn check_calls(trunk: &config::Trunk, reasons: &mut Vec<String>) {
    let name = &trunk.name;
    let mut check = |is_right: bool, setting: &str, reason: std::fmt::Arguments<'_>| {
        if !is_right {
            reasons.push(format!("trunks.{name}.{setting}: {reason}"));
        }
    };
    for (place, target) in trunk.targets.iter().enumerate() {
        let is_first = trunk.targets.iter().take(place).all(|other| other.uri != target.uri);
        check(
            is_first,
            "targets",
            format_args!("`{}` is there twice; one with twice the weight gets as much", target.uri),
        );
    }
    let failover = &trunk.failover;
    for code in &failover.codes {
        let is_final = (400..=599).contains(code);
        check(is_final, "failover.codes", format_args!("{code} is not from 400 to 599"));
        let is_servers = !OF_THE_CALLEE.contains(code);
        check(
            is_servers,
            "failover.codes",
            format_args!("{code} is the callee's word: another destination cannot better it"),
        );
    }
    let is_right = (1..=MOST_ATTEMPTS).contains(&failover.attempts);
    check(is_right, "failover.attempts", format_args!("{} is not from 1 to {MOST_ATTEMPTS}", failover.attempts));
    let Some(probe) = &trunk.probe else { return };
    let is_right = PROBE_INTERVAL_MS.contains(&probe.interval_ms);
    let (least, most) = (PROBE_INTERVAL_MS.start(), PROBE_INTERVAL_MS.end());
    check(is_right, "probe.interval_ms", format_args!("{} is not from {least} to {most}", probe.interval_ms));
    let is_right = probe.jitter_percent <= MOST_JITTER_PERCENT;
    check(
        is_right,
        "probe.jitter_percent",
        format_args!("{} is not from 0 to {MOST_JITTER_PERCENT}", probe.jitter_percent),
    );
    // Of one destination one probe is under way at a time.
    let percent = 100 - u64::from(probe.jitter_percent.min(100));
    let most = u64::from(probe.interval_ms) * percent / 100;
    let is_right = probe.timeout_ms >= LEAST_PROBE_TIMEOUT_MS && u64::from(probe.timeout_ms) <= most;
    let range = format_args!(
        "{} is not from {LEAST_PROBE_TIMEOUT_MS} to {most}, the interval less its jitter",
        probe.timeout_ms
    );
    check(is_right, "probe.timeout_ms", range);
    check(probe.down_after > 0, "probe.down_after", format_args!("must be at least 1"));
    check(probe.up_after > 0, "probe.up_after", format_args!("must be at least 1"));
    for code in &probe.codes {
        check((200..=699).contains(code), "probe.codes", format_args!("{code} is not from 200 to 699"));
    }
}

fn sources(config: &Config, reasons: &mut Vec<String>) -> Sources {
    let trunks = config.trunks.iter().enumerate();
    let prefixes = trunks.flat_map(|(index, trunk)| trunk.from.iter().map(move |prefix| (*prefix, index)));
    let name = |trunk: usize| config.trunks.get(trunk).map(|trunk| trunk.name.as_str()).unwrap_or_default();
    Sources::new(prefixes, |prefix, first, later| {
        reasons.push(format!("trunks: `{}` and `{}` both have the source {prefix}", name(first), name(later)));
    })
}

fn signing_keys(keys: &TokenKeys, reasons: &mut Vec<String>) -> (Option<Key>, Vec<SigningKey>) {
    let mut tokens: Vec<SigningKey> = Vec::new();
    for token in &keys.tokens {
        match Key::from_hex(&token.key) {
            Some(_) if tokens.iter().any(|other| other.id == token.id) => {
                reasons.push(format!("token keys: two keys have the id {}", token.id));
            }
            Some(key) => tokens.push(SigningKey { id: token.id, key }),
            None => reasons.push(format!("token keys: the key {} is not 64 hex digits", token.id)),
        }
    }
    if keys.tokens.is_empty() || keys.tokens.len() > 2 {
        reasons.push(format!("token keys: there are {}, there must be one or two", keys.tokens.len()));
    }
    let branch = Key::from_hex(&keys.branch);
    if branch.is_none() {
        reasons.push("token keys: the branch key is not 64 hex digits".to_owned());
    }
    (branch, tokens)
}

impl Target {
    fn new(settings: &config::Target, trunk: &str) -> Option<Self> {
        let uri = Uri::parse(settings.uri.as_bytes())?;
        let host = std::str::from_utf8(uri.host).ok()?;
        let mut host_port = uri.port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if let Some(transport) = uri.parameter(b"transport") {
            host_port.push_str(";transport=");
            host_port.push_str(Transport::of_parameter(transport)?.parameter());
        }
        let is_plain = !uri.secure && uri.user.is_none();
        let lookup = Lookup::of(&uri)?;
        let peer = TlsPeer { name: host.to_ascii_lowercase(), trunk: Some(trunk.to_owned()) };
        is_plain.then(|| Self {
            uri: settings.uri.clone(),
            host_port,
            lookup,
            priority: settings.priority,
            weight: settings.weight,
            leaves_transport_open: uri.transport().is_none(),
            hash: super::call_hash(settings.uri.as_bytes()),
            peer: Arc::new(peer),
        })
    }
}

/// The port of TLS. An edge that opens TLS connections and accepts none still writes a port into its Via.
fn tls_port(config: &Config) -> u16 {
    config.listen.tls.as_ref().map_or(Transport::Tls.default_port(), |listener| listener.port)
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// What no other destination would answer otherwise: challenges, which are the caller's to meet (RFC 3261 §22), the callee being busy,
/// and the end of a call that the caller has given up.
const OF_THE_CALLEE: [u16; 4] = [401, 407, 486, 487];
/// At 5 s each they take longer than any caller waits, and each is a transaction and an INVITE more.
const MOST_ATTEMPTS: u8 = 16;
/// More than one OPTIONS per second from each instance is a load that carriers block; after an hour it says nothing about now.
const PROBE_INTERVAL_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;
/// With more, two probes in a row might come at any time.
const MOST_JITTER_PERCENT: u8 = 50;
/// A round trip round the world takes 300 ms; a lost datagram is sent again after T1, 500 ms.
const LEAST_PROBE_TIMEOUT_MS: u32 = 100;
