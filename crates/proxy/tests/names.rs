//! Destinations' domains: resolved ahead of the calls, once for all shards, and again when their time is over.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use process::sip::Agent;
use process::{DEADLINE, EGRESS, INGRESS, address, config, keys};
use sipedge_proxy::config::Target;
use sipedge_proxy::engine::{Control, Place};
use sipedge_proxy::net::{Proxy, TlsMaterial};

/// A name server with one answer to every A query; `None`: it says nothing.
fn name_server(ip: IpAddr, answer: Option<IpAddr>) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let (server, queries) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&queries);
    // The thread ends with the test process.
    std::thread::spawn(move || {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::SeqCst);
            let Some(IpAddr::V4(ip)) = answer else { continue };
            // The question ends after the root label, type and class.
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut reply = buffer[..2].to_vec();
            reply.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(&buffer[12..end]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4]);
            reply.extend(ip.octets());
            socket.send_to(&reply, from).unwrap();
        }
    });
    (server, queries)
}

fn start(edge: u8, caller: IpAddr, target: &str, server: SocketAddr) -> (Proxy, SocketAddr) {
    let mut config = config(address(edge), caller, server);
    config.trunks[1].targets = vec![Target::new(target)];
    config.dns.servers = vec![server];
    let (ingress, egress) = (SocketAddr::new(address(edge), INGRESS), SocketAddr::new(address(edge), EGRESS));
    let place = Place { ingress, egress, advertised: address(edge).to_string(), shards: 2 };
    (Proxy::start(config, place, &keys(), &TlsMaterial::default()).unwrap(), ingress)
}

fn wait_for_names(proxy: &Proxy) {
    let deadline = Instant::now() + DEADLINE;
    while proxy.names_unanswered() > 0 {
        assert!(Instant::now() < deadline, "{} names unanswered", proxy.names_unanswered());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_domain_is_resolved_before_the_first_call_and_once_for_all_shards() {
    let caller = Agent::bind(address(81), 0);
    let callee = Agent::bind(address(82), 0);
    let (server, queries) = name_server(address(83), Some(address(82)));
    let target = format!("sip:pstn.example:{}", callee.address.port());
    let (proxy, edge) = start(80, address(81), &target, server);
    assert!(proxy.names_unanswered() > 0, "the question is asked before `start` returns");
    wait_for_names(&proxy);
    assert_eq!(queries.load(Ordering::SeqCst), 1, "one query for two shards");
    proxy.control(Control::Open);
    for call in 0..20 {
        caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), &format!("named-{call}")), edge);
        let invite = callee.expect("INVITE");
        assert!(invite.first_line().contains("@pstn.example"), "{}", invite.first_line());
        callee.respond(&invite, "486 Busy Here");
        caller.expect("486");
    }
}

#[test]
fn a_name_server_that_is_silent_is_an_empty_answer_in_the_end() {
    let (server, queries) = name_server(address(86), None);
    let (proxy, edge) = start(84, address(85), "sip:pstn.example", server);
    wait_for_names(&proxy);
    assert!(queries.load(Ordering::SeqCst) > 1, "it is asked more than once");
    proxy.control(Control::Open);
    let caller = Agent::bind(address(85), 0);
    caller.send(&caller.request("INVITE", &format!("sip:42@{edge}"), "nowhere"), edge);
    caller.expect("SIP/2.0 5");
}
