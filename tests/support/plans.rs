//! Plans written by hand, for tests that need one and no spec.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use sipedge::plan::{
    Endpoint, FlowTimeouts, HealthCheck, Listener, Network, Plan, Protocol, RefreshPlan, Scaling, Spreading,
    TargetKind, Topology, VerifyCall, VerifyPlan,
};
use sipedge::spec::Transport;
use sipedge_proxy::config::{
    Admin, Advertise, Budgets, Config, Dns, Drain, Listen, Refuse, Route, SecretRef, Secrets, Streams, Target, Timers,
    Trunk,
};

use crate::loopback::{DOMAIN, NUMBER};

/// A plan with one call from `caller` to `callee`, on the edge at `ingress`.
pub(crate) fn one_call(ingress: SocketAddr, caller: SocketAddr, callee: SocketAddr, refuse: Refuse) -> Plan {
    let endpoint =
        |namespace: &str, address| Endpoint { namespace: namespace.to_owned(), address, transport: Transport::Udp };
    Plan {
        name: "bridge".to_owned(),
        topology: Topology::LoadBalanced,
        target: TargetKind::Lab,
        proxy: config(ingress, caller, refuse),
        user_data: String::new(),
        network: network(ingress),
        scaling: Scaling { min: 2, max: 2 },
        refresh: RefreshPlan::default(),
        aws: None,
        cost: None,
        whitelist: Vec::new(),
        carriers: Vec::new(),
        verify: VerifyPlan {
            calls: vec![VerifyCall {
                from: "source".to_owned(),
                to: "destination".to_owned(),
                caller: endpoint("source", caller),
                callee: vec![endpoint("destination", callee)],
                request_uri_hosts: vec![DOMAIN.to_owned()],
                number: NUMBER.to_owned(),
            }],
            max_setup_ms: 250,
            operators: Vec::new(),
        },
        certificates: Vec::new(),
        artefacts: BTreeMap::new(),
        defaults: Vec::new(),
        warnings: Vec::new(),
    }
}

fn config(ingress: SocketAddr, caller: SocketAddr, refuse: Refuse) -> Config {
    Config {
        version: 1,
        edge: "bridge".to_owned(),
        listen: Listen { address: Some(ingress.ip()), ..Listen::udp(ingress.port(), 5080) },
        advertise: Advertise::Host(ingress.ip().to_string()),
        admin: Admin { port: 8080 },
        dns: Dns { servers: Vec::new() },
        secrets: Secrets::new(SecretRef::File("token-keys".to_owned())),
        trunks: vec![
            Trunk { from: vec![IpNet::from(caller.ip())], ..Trunk::new("source") },
            Trunk { targets: vec![Target::new(format!("sip:{DOMAIN}"))], ..Trunk::new("destination") },
        ],
        routes: vec![Route { from: "source".to_owned(), to: "destination".to_owned() }],
        refuse,
        timers: Timers {
            t1_ms: 500,
            t2_ms: 4_000,
            t4_ms: 5_000,
            response_ms: 5_000,
            invite_ms: 30_000,
            call_ms: 60_000,
        },
        budgets: Budgets { transactions: 1_000, message_bytes: 1_000_000, counted_calls: 1_000 },
        streams: Streams::default(),
        drain: Drain { accept_ms: 1_000, grace_ms: 10_000, retry_after_s: 5 },
        cloud: None,
        answerer: None,
    }
}

fn network(ingress: SocketAddr) -> Network {
    Network {
        vpc: "10.0.0.0/16".parse().unwrap_or_default(),
        zones: Vec::new(),
        ingress_addresses: vec![ingress.ip()],
        egress_addresses: vec![ingress.ip()],
        listeners: vec![Listener { port: ingress.port(), protocol: Protocol::Udp }],
        spreading: Spreading::SourceIp,
        health_check: HealthCheck {
            port: 8080,
            path: "/readyz".to_owned(),
            interval_ms: 30_000,
            healthy: 2,
            unhealthy: 2,
        },
        flow_timeouts: FlowTimeouts { unreplied_s: 30, replied_s: 120, nat_s: 350, tcp_s: 350 },
    }
}
