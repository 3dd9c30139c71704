//! What the engine takes for a message, a call, and a source among a million prefixes: `cargo bench -p sipedge-proxy`.

#[path = "../tests/bench/mod.rs"]
mod bench;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use sipedge_proxy::config::Trunk;
use sipedge_proxy::engine::{Arrival, Port};

use bench::carriers::Carriers;
use bench::{Bench, CALLER, STRANGER, address, config, request};

/// Prefixes of the table that a source is looked up in.
const PREFIXES: u32 = 1_000_000;

fn steps(criterion: &mut Criterion) {
    let mut carriers = Carriers::new();
    let mut number = 10_000;
    criterion.bench_function("a call, seven messages", |bencher| {
        bencher.iter(|| {
            carriers.call(number);
            carriers.pass(Duration::from_millis(10));
            number += 1;
        });
    });
    // A whole call is the sum of these, and of the peers' own work.
    let arrival = |from: &str| Arrival::datagram(Port::Ingress, address(from));
    let mut line = Bench::new(config());
    let stranger = request("INVITE", 1, "x", "", "");
    criterion.bench_function("an INVITE of a stranger, refused", |bencher| {
        bencher.iter(|| {
            line.engine.handle_message(line.now, &arrival(STRANGER), black_box(stranger.as_bytes()));
            line.engine.clear_outbox();
        });
    });
    let (route, _) = line.call(7);
    let ack = request("ACK", 7, "again", ";tag=callee", &route);
    criterion.bench_function("an ACK by its token", |bencher| {
        bencher.iter(|| {
            line.engine.handle_message(line.now, &arrival(CALLER), black_box(ack.as_bytes()));
            line.engine.clear_outbox();
        });
    });
    let forged = ack.replacen("Route: <sip:", "Route: <sip:x", 1);
    criterion.bench_function("an ACK with a forged token", |bencher| {
        bencher.iter(|| {
            line.engine.handle_message(line.now, &arrival(CALLER), black_box(forged.as_bytes()));
            line.engine.clear_outbox();
        });
    });
}

fn lookup(criterion: &mut Criterion) {
    let mut many = config();
    let net = |number: u32| {
        let ip = Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1));
        IpNet::from(Ipv4Net::new(ip, 18 + (number % 15) as u8).unwrap_or_default()).trunc()
    };
    let mut prefixes: Vec<IpNet> = (0..PREFIXES).map(net).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    many.trunks.push(Trunk { from: prefixes, ..Trunk::new("many") });
    let begun = Instant::now();
    let setup = bench::setup(many);
    println!("the table of {PREFIXES} prefixes is made in {:.3} s", begun.elapsed().as_secs_f64());
    let mut number = 0_u32;
    criterion.bench_function("a source among a million prefixes", |bencher| {
        bencher.iter_batched(
            || {
                number = number.wrapping_add(0x517c_c1b7);
                IpAddr::V4(Ipv4Addr::from(number))
            },
            |ip| setup.has_source(black_box(ip)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, steps, lookup);
criterion_main!(benches);
