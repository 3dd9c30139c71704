//! Internet gateway, NLB and NAT gateway as nf_tables rules of the `vpc` namespace, by netlink.
//!
//! | chain      | hook                | does                                                                      |
//! |------------|---------------------|---------------------------------------------------------------------------|
//! | `timeouts` | prerouting, mangle  | gives new flows AWS's idle timeouts                                       |
//! | `ingress`  | prerouting, dstnat  | the listeners of the ingress addresses → chain `targets`                  |
//! | `targets`  | (jump)              | one DNAT per healthy target, by jhash; single-ec2: one DNAT to the instance |
//! | `egress`   | postrouting, srcnat | VPC addresses → egress addresses                                          |
//! | `elastic`  | (jump)              | single-ec2: the instance with the Elastic IP → that; others have one that was assigned at launch |
//! | `forward`  | forward             | the private range is not reachable from the Internet                      |
//! | `input`    | input               | the router's own services are for instances alone                         |
//! | `leak`     | postrouting, late   | no private address leaves untranslated                                    |
//!
//! The same source address has the same target on every listener; on AWS each listener has a target group with a stickiness of its own.
//! What arrives on a TCP connection that is no longer tracked goes to a target as if it were new, and that target's kernel resets it, as
//! a load balancer does.
//!
//! One thing differs from AWS: Linux gives a flow the timeout of replied flows only once it has carried packets for two seconds; until
//! then an answered flow idles out like an unanswered one.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::libc;

use super::LabError;
use super::netlink::{Attrs, Message, Netfilter, SUBSYSTEM_NFTABLES};
use crate::plan::{FlowTimeouts, Listener, Protocol, Spreading, Topology};

/// Devices of `vpc` that lead to carriers and to the stranger begin so; those that lead to instances begin with `i-`.
pub(super) const INTERNET_PREFIX: &str = "x-";
/// See [`INTERNET_PREFIX`].
pub(super) const INSTANCE_PREFIX: &str = "i-";

/// What the rules are made of.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) topology: Topology,
    pub(super) vpc: Ipv4Net,
    pub(super) ingress: Vec<Ipv4Addr>,
    /// The NLB's listeners; single-ec2: what the security group lets in.
    pub(super) listeners: Vec<Listener>,
    pub(super) spreading: Spreading,
    pub(super) timeouts: FlowTimeouts,
    /// Private ranges, each with the address that new flows from it leave with.
    pub(super) egress: Vec<(Ipv4Net, Ipv4Addr)>,
}

impl Gateway {
    /// Creates all chains, with no target yet.
    pub(super) fn build(&self, netfilter: &mut Netfilter) -> Result<(), LabError> {
        let table = Attrs::default().text(1, TABLE);
        let mut messages = vec![message("create the nf_tables table", NEW_TABLE, libc::NLM_F_CREATE, table)];
        let instance_s = match self.topology {
            Topology::LoadBalanced => self.timeouts.nat_s,
            Topology::SingleEc2 => self.timeouts.replied_s,
        };
        messages.extend([
            udp_timeout(OPENED_BY_INTERNET, &self.timeouts, self.timeouts.replied_s),
            udp_timeout(OPENED_BY_INSTANCE, &self.timeouts, instance_s),
            tcp_timeout(CONNECTION, &self.timeouts),
            base_chain("timeouts", "filter", PREROUTING, -150),
            base_chain("ingress", "nat", PREROUTING, -100),
            base_chain("egress", "nat", POSTROUTING, 100),
            base_chain("forward", "filter", FORWARD, 0),
            base_chain("input", "filter", INPUT, 0),
            base_chain("leak", "filter", POSTROUTING, 150),
            chain("targets", Attrs::default()),
            chain("elastic", Attrs::default()),
        ]);
        messages.extend(self.static_rules().iter().map(Rule::message));
        netfilter.commit(&messages)
    }

    /// Makes these the targets of new flows, in one transaction. Flows that are tracked stay where they are.
    pub(super) fn set_targets(&self, netfilter: &mut Netfilter, targets: &[Ipv4Addr]) -> Result<(), LabError> {
        let flush = |chain: &str| {
            let attrs = Attrs::default().text(1, TABLE).text(2, chain);
            message(&format!("empty the nf_tables chain {chain}"), DELETE_RULE, 0, attrs)
        };
        let mut messages = vec![flush("targets"), flush("elastic")];
        // More targets than u32 holds cannot exist in a VPC.
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        for (index, target) in (0..).zip(targets) {
            let rule = Rule::new("targets");
            let rule = if count == 1 { rule } else { rule.hash(self.spreading, count, index) };
            messages.push(rule.nat(DNAT, *target, 0).message());
            for (range, address) in self.egress.iter().filter(|_| self.topology == Topology::SingleEc2) {
                if range.contains(target) {
                    messages.push(Rule::new("elastic").address(IP_SOURCE, *target).nat(SNAT, *address, 0).message());
                }
            }
        }
        netfilter.commit(&messages)
    }

    fn static_rules(&self) -> Vec<Rule> {
        let mut rules = vec![
            Rule::new("timeouts").device(META_IIFNAME, INTERNET_PREFIX).protocol(UDP).timeout(OPENED_BY_INTERNET),
            Rule::new("timeouts").device(META_IIFNAME, INSTANCE_PREFIX).protocol(UDP).timeout(OPENED_BY_INSTANCE),
            Rule::new("timeouts").protocol(TCP).timeout(CONNECTION),
            Rule::new("forward").conntrack(CT_STATE, CT_STATE_INVALID, true).verdict(libc::NF_DROP, None),
            Rule::new("forward")
                .device(META_IIFNAME, INTERNET_PREFIX)
                .range(IP_DESTINATION, self.vpc)
                .conntrack(CT_STATUS, CT_SNAT | CT_DNAT, false)
                .verdict(libc::NF_DROP, None),
            Rule::new("input").device(META_IIFNAME, INTERNET_PREFIX).verdict(libc::NF_DROP, None),
            Rule::new("leak")
                .device(META_OIFNAME, INTERNET_PREFIX)
                .range(IP_SOURCE, self.vpc)
                .verdict(libc::NF_DROP, None),
        ];
        for ingress in &self.ingress {
            for listener in &self.listeners {
                let protocols: &[u8] = match listener.protocol {
                    Protocol::Udp => &[UDP],
                    Protocol::Tcp => &[TCP],
                    Protocol::TcpUdp => &[UDP, TCP],
                };
                for protocol in protocols {
                    let rule = Rule::new("ingress").address(IP_DESTINATION, *ingress).protocol(*protocol);
                    rules.push(rule.destination_port(listener.port).verdict(NFT_JUMP, Some("targets")));
                }
            }
        }
        // An Elastic IP of an instance is 1:1 and keeps ports; the NAT gateway chooses a random one.
        let flags = match self.topology {
            Topology::LoadBalanced => NAT_RANDOM_FULLY,
            Topology::SingleEc2 => 0,
        };
        for (range, address) in &self.egress {
            let from = Rule::new("egress").range(IP_SOURCE, *range);
            let leaves = from.clone().device(META_OIFNAME, INTERNET_PREFIX);
            // An instance that calls an ingress address leaves and comes back, as on AWS.
            let comes_back = from.conntrack(CT_STATUS, CT_DNAT, true);
            for way in [leaves, comes_back] {
                match self.topology {
                    Topology::LoadBalanced => rules.push(way.nat(SNAT, *address, flags)),
                    Topology::SingleEc2 => rules.extend([
                        way.clone().verdict(NFT_JUMP, Some("elastic")),
                        way.nat(SNAT, ASSIGNED_AT_LAUNCH, flags),
                    ]),
                }
            }
        }
        rules
    }
}

/// Name of the table.
const TABLE: &str = "sipedge";
/// Idle timeouts of UDP flows that the Internet opens, and of those that instances open.
const OPENED_BY_INTERNET: &str = "opened-by-internet";
const OPENED_BY_INSTANCE: &str = "opened-by-instance";
/// Idle timeout of established TCP connections.
const CONNECTION: &str = "connection";
/// single-ec2: the public address of an instance that does not hold the Elastic IP. One for all: there is one at a time that opens flows.
const ASSIGNED_AT_LAUNCH: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);
/// Seed of the NLB's hash: every rule of the chain must compute the same value, and tests want the same spreading each time.
const HASH_SEED: u32 = 0x5e_d9_e0_01;

// Message types, expressions and their attributes: linux/netfilter/nf_tables.h. Attribute numbers stand where they are used, in the
// order of the header's enums.
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_OBJECT: u16 = 18;
const OBJECT_CT_TIMEOUT: u32 = 7;
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const POSTROUTING: u32 = 4;
const NFT_JUMP: i32 = -3;
const VERDICT_REGISTER: u32 = 0;
/// First of the 4-byte registers; the others follow it.
const REGISTER: u32 = 8;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATE_INVALID: u32 = 1;
/// Bits of a flow's status (linux/netfilter/nf_conntrack_common.h).
const CT_SNAT: u32 = 1 << 4;
const CT_DNAT: u32 = 1 << 5;
const SNAT: u32 = 0;
const DNAT: u32 = 1;
/// linux/netfilter/nf_nat.h.
const NAT_RANDOM_FULLY: u32 = 1 << 4;
const CMP_EQUAL: u32 = 0;
const CMP_NOT_EQUAL: u32 = 1;
/// Offsets in the IPv4 header (RFC 791 §3.1).
const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// Place of the established state among the timeouts of TCP (linux/netfilter/nfnetlink_cttimeout.h); the others keep the kernel's.
const TCP_ESTABLISHED: u16 = 3;

fn message(what: &str, kind: u16, flags: i32, attrs: Attrs) -> Message {
    Message { what: what.to_owned(), kind: SUBSYSTEM_NFTABLES << 8 | kind, flags, attrs }
}

fn chain(name: &str, hook: Attrs) -> Message {
    let attrs = Attrs::default().text(1, TABLE).text(3, name).append(&hook);
    message(&format!("create the nf_tables chain {name}"), NEW_CHAIN, libc::NLM_F_CREATE, attrs)
}

fn base_chain(name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    let at = Attrs::default().number(1, hook).number(2, priority.cast_unsigned());
    chain(name, Attrs::default().nest(4, &at).text(7, kind))
}

/// Timeouts of UDP flows: seconds unreplied and replied.
fn udp_timeout(name: &str, timeouts: &FlowTimeouts, replied_s: u32) -> Message {
    timeout_object(name, UDP, &Attrs::default().number(1, timeouts.unreplied_s).number(2, replied_s))
}

/// Timeouts of TCP connections.
fn tcp_timeout(name: &str, timeouts: &FlowTimeouts) -> Message {
    timeout_object(name, TCP, &Attrs::default().number(TCP_ESTABLISHED, timeouts.tcp_s))
}

/// A timeout object: table, name, type, and its data: layer 3, layer 4, seconds by state.
fn timeout_object(name: &str, protocol: u8, seconds: &Attrs) -> Message {
    let ipv4 = u16::try_from(libc::AF_INET).unwrap_or_default();
    let data = Attrs::default().bytes(1, &ipv4.to_be_bytes()).bytes(2, &[protocol]).nest(3, seconds);
    let attrs = Attrs::default().text(1, TABLE).text(2, name).number(3, OBJECT_CT_TIMEOUT).nest(4, &data);
    message(&format!("create the flow timeout {name}"), NEW_OBJECT, libc::NLM_F_CREATE, attrs)
}

/// A rule of one chain: a list of expressions, matched from left to right.
#[derive(Debug, Clone)]
struct Rule {
    chain: &'static str,
    expressions: Attrs,
}

impl Rule {
    fn new(chain: &'static str) -> Self {
        Self { chain, expressions: Attrs::default() }
    }

    fn message(&self) -> Message {
        let attrs = Attrs::default().text(1, TABLE).text(2, self.chain).nest(4, &self.expressions);
        let what = format!("add a rule to the nf_tables chain {}", self.chain);
        message(&what, NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, attrs)
    }

    /// Device name that begins with `prefix`.
    fn device(self, key: u32, prefix: &str) -> Self {
        self.meta(key).compare(CMP_EQUAL, prefix.as_bytes())
    }

    fn protocol(self, protocol: u8) -> Self {
        self.meta(META_L4PROTO).compare(CMP_EQUAL, &[protocol])
    }

    fn address(self, offset: u32, address: Ipv4Addr) -> Self {
        self.payload(REGISTER, BASE_NETWORK, offset, 4).compare(CMP_EQUAL, &address.octets())
    }

    fn range(self, offset: u32, range: Ipv4Net) -> Self {
        let loaded = self.payload(REGISTER, BASE_NETWORK, offset, 4);
        loaded.mask(range.netmask().octets()).compare(CMP_EQUAL, &range.network().octets())
    }

    fn destination_port(self, port: u16) -> Self {
        self.payload(REGISTER, BASE_TRANSPORT, 2, 2).compare(CMP_EQUAL, &port.to_be_bytes())
    }

    /// A property of the flow that has any (`set`) or none of `bits`.
    fn conntrack(self, key: u32, bits: u32, set: bool) -> Self {
        let loaded = self.push("ct", &Attrs::default().number(1, REGISTER).number(2, key));
        let operator = if set { CMP_NOT_EQUAL } else { CMP_EQUAL };
        loaded.mask(bits.to_ne_bytes()).compare(operator, &[0; 4])
    }

    /// jhash of the source address, or of addresses and ports, modulo `count`, is `index`.
    fn hash(self, spreading: Spreading, count: u32, index: u32) -> Self {
        let (loaded, length) = match spreading {
            Spreading::SourceIp => (self.payload(REGISTER, BASE_NETWORK, IP_SOURCE, 4), 4),
            Spreading::FiveTuple => {
                let addresses = self.payload(REGISTER, BASE_NETWORK, IP_SOURCE, 8);
                (addresses.payload(REGISTER + 2, BASE_TRANSPORT, 0, 4), 12)
            }
        };
        let hash = Attrs::default().number(1, REGISTER).number(2, REGISTER).number(3, length);
        let hash = hash.number(4, count).number(5, HASH_SEED);
        loaded.push("hash", &hash).compare(CMP_EQUAL, &index.to_ne_bytes())
    }

    fn timeout(self, name: &str) -> Self {
        self.push("objref", &Attrs::default().number(1, OBJECT_CT_TIMEOUT).text(2, name))
    }

    fn nat(self, kind: u32, address: Ipv4Addr, flags: u32) -> Self {
        let loaded = self.immediate(REGISTER, &Attrs::default().bytes(1, &address.octets()));
        let family = libc::AF_INET.cast_unsigned();
        let nat = Attrs::default().number(1, kind).number(2, family).number(3, REGISTER);
        loaded.push("nat", &if flags == 0 { nat } else { nat.number(7, flags) })
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let verdict = Attrs::default().number(1, code.cast_unsigned());
        let verdict = chain.map_or(verdict.clone(), |name| verdict.text(2, name));
        self.immediate(VERDICT_REGISTER, &Attrs::default().nest(2, &verdict))
    }

    fn meta(self, key: u32) -> Self {
        self.push("meta", &Attrs::default().number(1, REGISTER).number(2, key))
    }

    fn payload(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        self.push("payload", &Attrs::default().number(1, register).number(2, base).number(3, offset).number(4, length))
    }

    fn mask(self, mask: [u8; 4]) -> Self {
        let attrs = Attrs::default().number(1, REGISTER).number(2, REGISTER).number(3, 4);
        let attrs = attrs.nest(4, &Attrs::default().bytes(1, &mask)).nest(5, &Attrs::default().bytes(1, &[0; 4]));
        self.push("bitwise", &attrs)
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let data = Attrs::default().bytes(1, value);
        self.push("cmp", &Attrs::default().number(1, REGISTER).number(2, operator).nest(3, &data))
    }

    fn immediate(self, register: u32, data: &Attrs) -> Self {
        self.push("immediate", &Attrs::default().number(1, register).nest(2, data))
    }

    fn push(self, name: &str, data: &Attrs) -> Self {
        let expression = Attrs::default().text(1, name).nest(2, data);
        Self { expressions: self.expressions.nest(1, &expression), ..self }
    }
}
