//! Calls for SIPS URIs, and calls that come or go by TLS: which Record-Route both sides get (RFC 3261 §16.6 step 4, RFC 5630, RFC 5658),
//! and that nothing of a SIPS call leaves in the clear.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use std::net::{IpAddr, SocketAddr, TcpListener};

use process::address;
use process::certificates::{Authority, ip, server};
use process::sip::{Agent, Message};
use process::stream::{Line, listen, start, tcp_config};
use sipedge_proxy::config::{SecretRef, TlsListener, TrunkTls};
use sipedge_proxy::net::{Proxy, TlsMaterial};

/// An edge with TLS on port 5061 whose calls go to a callee.
struct Edge {
    _proxy: Proxy,
    clear: SocketAddr,
    tls: SocketAddr,
    /// Who has issued its certificate, and that of a callee on TLS.
    authority: Authority,
}

impl Edge {
    /// At the address with this number; its caller is at the next one.
    fn start(number: u8, target: &str) -> Self {
        let at = address(number);
        let mut config = tcp_config(at, address(number + 1), target);
        let file = |name: &str| SecretRef::File(name.into());
        let (own, roots) = (file("edge.pem"), file("roots.pem"));
        config.listen.tls =
            Some(TlsListener { port: 5061, certificate: own.clone(), client_roots: None, require_client: false });
        config.trunks[1].tls = Some(TrunkTls { certificate: None, roots: Some(roots.clone()) });
        let authority = Authority::new("roots");
        let mut material = TlsMaterial::default();
        material.insert(own, authority.issue(&[ip(at)]).into());
        material.insert(roots, authority.pem().into());
        let (proxy, clear) = start(config, &material);
        Self { _proxy: proxy, clear, tls: SocketAddr::new(at, 5061), authority }
    }

    fn accept(&self, listener: &TcpListener) -> Line<impl std::io::Read + std::io::Write + use<>> {
        let callee = listener.local_addr().unwrap().ip();
        Line::accept_tls(listener, server(&self.authority.issue(&[ip(callee)]), None)).unwrap()
    }
}

/// The URIs of the Record-Route values, from the top.
fn routes(message: &Message) -> Vec<String> {
    let values = message.headers("Record-Route").into_iter().flat_map(|line| line.split(','));
    values.map(|value| value.trim().trim_matches(['<', '>']).to_owned()).collect()
}

/// `scheme:…@host:port` and the parameters of a route of ours.
fn parts(route: &str) -> (&str, &str, Vec<&str>) {
    let (scheme, rest) = route.split_once(':').unwrap();
    let (_, rest) = rest.split_once('@').unwrap_or_else(|| panic!("no token in {route}"));
    let mut parameters = rest.split(';');
    (scheme, parameters.next().unwrap(), parameters.collect())
}

/// A callee on TLS, and the URI that leads there.
fn on_tls(callee: IpAddr) -> (TcpListener, String) {
    let listener = listen(callee);
    let target = format!("sip:{};transport=tls", listener.local_addr().unwrap());
    (listener, target)
}

#[test]
fn a_sips_call_is_record_routed_with_sips() {
    let (listener, target) = on_tls(address(12));
    let edge = Edge::start(10, &target);
    let mut caller =
        Line::connect_tls(address(11), edge.tls, edge.authority.client(None), &edge.tls.ip().to_string()).unwrap();
    caller.send(&caller.request("INVITE", &format!("sips:1@{}", edge.tls), "secure"));
    let mut callee = edge.accept(&listener);
    let invite = callee.expect("INVITE sips:");
    let routes = routes(&invite);
    assert_eq!(routes.len(), 1, "{}", invite.text);
    assert_eq!(parts(&routes[0]), ("sips", edge.tls.to_string().as_str(), vec!["lr"]), "{}", invite.text);
    callee.respond(&invite, "200 OK");
    let ok = caller.expect("200");
    let in_dialog = |caller: &Line<_>, method: &str, number: u8| {
        caller.in_dialog(method, number, &ok).replacen(&format!("{method} sip:"), &format!("{method} sips:"), 1)
    };
    caller.send(&in_dialog(&caller, "ACK", 1));
    callee.expect("ACK sips:");
    caller.send(&in_dialog(&caller, "BYE", 2));
    let bye = callee.expect("BYE sips:");
    assert!(bye.headers("Route").is_empty(), "{}", bye.text);
    assert!(bye.header("Via").starts_with("SIP/2.0/TLS "), "{}", bye.text);
}

#[test]
fn the_host_in_record_route_over_tls_is_in_the_edge_s_certificate() {
    let (listener, target) = on_tls(address(22));
    let edge = Edge::start(20, &target);
    let caller = Agent::bind(address(21), 0);
    caller.send(&caller.request("INVITE", &format!("sip:1@{}", edge.clear), "named"), edge.clear);
    let invite = edge.accept(&listener).expect("INVITE");
    let routes = routes(&invite);
    let (scheme, host, parameters) = parts(&routes[0]);
    assert_eq!((scheme, parameters), ("sip", vec!["transport=tls", "lr"]));
    let to: SocketAddr = host.parse().unwrap();
    // The callee's next request would go there, and asks the certificate for that name.
    Line::connect_tls(address(22), to, edge.authority.client(None), &to.ip().to_string()).unwrap();
    let other = Line::connect_tls(address(22), to, edge.authority.client(None), &address(23).to_string());
    assert!(other.is_err(), "a check that asks for nothing");
}

#[test]
fn a_sips_call_that_came_in_the_clear_is_record_routed_with_sips() {
    let (listener, target) = on_tls(address(32));
    let edge = Edge::start(30, &target);
    let caller = Agent::bind(address(31), 0);
    caller.send(&caller.request("INVITE", &format!("sips:1@{}", edge.clear), "clear"), edge.clear);
    let invite = edge.accept(&listener).expect("INVITE sips:");
    let routes = routes(&invite);
    let ours: Vec<(&str, &str)> = routes.iter().map(|route| (parts(route).0, parts(route).1)).collect();
    assert_eq!(ours, [("sips", edge.tls.to_string().as_str()), ("sips", edge.clear.to_string().as_str())]);
}

#[test]
fn a_call_from_tls_to_udp_has_a_route_for_each_side() {
    let callee = Agent::bind(address(42), 0);
    let edge = Edge::start(40, &format!("sip:{}", callee.address));
    let mut caller =
        Line::connect_tls(address(41), edge.tls, edge.authority.client(None), &edge.tls.ip().to_string()).unwrap();
    caller.send(&caller.request("INVITE", &format!("sip:1@{}", edge.tls), "mixed"));
    let invite = callee.expect("INVITE sip:");
    let routes = routes(&invite);
    assert_eq!(routes.len(), 2, "{}", invite.text);
    assert_eq!(parts(&routes[0]), ("sip", edge.clear.to_string().as_str(), vec!["lr"]));
    assert_eq!(parts(&routes[1]), ("sip", edge.tls.to_string().as_str(), vec!["transport=tls", "lr"]));
    callee.respond(&invite, "200 OK");
    let ok = caller.expect("200");
    caller.send(&caller.in_dialog("ACK", 1, &ok));
    callee.expect("ACK");
    caller.send(&caller.in_dialog("BYE", 2, &ok));
    let bye = callee.expect("BYE");
    assert!(bye.headers("Route").is_empty() && bye.header("Via").starts_with("SIP/2.0/UDP "), "{}", bye.text);
    callee.respond(&bye, "200 OK");
    assert!(caller.expect("200").header("CSeq").ends_with("BYE"));
}

/// Over UDP as over TLS: where the destination speaks no TLS, a SIPS call ends here.
#[test]
fn a_sips_call_never_leaves_without_tls() {
    let callee = Agent::bind(address(52), 0);
    let edge = Edge::start(50, &format!("sip:{}", callee.address));
    let mut caller =
        Line::connect_tls(address(51), edge.tls, edge.authority.client(None), &edge.tls.ip().to_string()).unwrap();
    caller.send(&caller.request("INVITE", &format!("sips:1@{}", edge.tls), "secure"));
    caller.expect("416");
    caller.send(&caller.request("INVITE", &format!("sip:1@{}", edge.tls), "plain"));
    assert_eq!(callee.expect("INVITE").header("Call-ID"), "plain", "nothing of the SIPS call came before");
}
