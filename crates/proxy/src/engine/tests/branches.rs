//! Several destinations: who is tried, and what becomes of those who answer late.

use super::*;

/// A bench whose destination has these servers, the first one first.
fn bench(servers: &[(&str, Transport)]) -> Bench {
    let mut bench = Bench::new(config());
    let query = Query { host: "callee.example".into(), port: None, transport: None, secure: false };
    let servers: Vec<Server> = (0..)
        .zip(servers)
        .map(|(priority, (address, transport))| Server { priority, transport: *transport, ..server(address) })
        .collect();
    bench.engine.handle_resolved(bench.now, &query, &servers, Duration::from_secs(60));
    bench.engine.clear_outbox();
    bench
}

/// Where the INVITEs among these went.
fn invited(sent: &[Sent]) -> Vec<&str> {
    sent.iter().filter(|one| one.start().starts_with("INVITE ")).map(|one| one.to.as_str()).collect()
}

const FIRST: &str = "198.51.100.1:5060";
const SECOND: &str = "198.51.100.2:5060";
const THIRD: &str = "198.51.100.3:5060";

#[test]
fn who_has_refused_over_tcp_is_not_tried_again() {
    let mut bench = bench(&[(FIRST, Transport::Tcp), (SECOND, Transport::Tcp), (THIRD, Transport::Tcp)]);
    let first = bench.invite("z9hG4bKone");
    assert_eq!(first.to, FIRST);
    let sent = bench.answer(&first, "503 Service Unavailable");
    assert_eq!(invited(&sent), [SECOND]);
    let second = sent.into_iter().find(|one| one.start().starts_with("INVITE ")).unwrap();
    // Over a reliable transport a refused branch has ended by now.
    bench.pass(1);
    let sent = bench.answer(&second, "503 Service Unavailable");
    assert_eq!(invited(&sent), [THIRD]);
}
