//! How many connections there may be, and whose.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod process;

use process::address;
use process::stream::{Line, start, tcp_config, wait_for};
use sipedge_proxy::config::Refuse;
use sipedge_proxy::net::TlsMaterial;

#[test]
fn a_source_gets_so_many_connections_and_no_more() {
    let mut config = tcp_config(address(118), address(119), "sip:192.0.2.1");
    config.streams.connections_per_source = 3;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut lines: Vec<_> = (0..3).map(|_| Line::connect(address(119), edge)).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        assert!(line.options(&format!("line{number}")).contains("200"));
    }
    Line::connect(address(119), edge).expect_end();
    let numbers = wait_for(&proxy, "one refused", |numbers| numbers.streams.refused_source == 1);
    assert_eq!((numbers.streams.accepted, numbers.streams.refused_limit), (3, 0));
    // One that ends makes room.
    lines.pop();
    wait_for(&proxy, "one gone", |numbers| numbers.stream_gauges.connections_in == 2);
    assert!(Line::connect(address(119), edge).options("again").contains("200"));
}

#[test]
fn all_together_get_so_many_and_no_more() {
    let mut config = tcp_config(address(120), address(121), "sip:192.0.2.1");
    config.trunks[0].from = vec!["127.0.0.0/8".parse().unwrap()];
    config.streams.connections = 2;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    let mut lines = [Line::connect(address(121), edge), Line::connect(address(122), edge)];
    for line in &mut lines {
        assert!(line.options("inside").contains("200"));
    }
    Line::connect(address(123), edge).expect_end();
    wait_for(&proxy, "one refused", |numbers| numbers.streams.refused_limit == 1);
    for line in &mut lines {
        assert!(line.options("undisturbed").contains("200"));
    }
}

#[test]
fn a_stranger_gets_an_answer_and_few_connections() {
    let (proxy, edge) = start(tcp_config(address(124), address(125), "sip:192.0.2.1"), &TlsMaterial::default());
    let mut strangers = [(); 2].map(|()| Line::connect(address(126), edge));
    for stranger in &mut strangers {
        assert!(stranger.options("stranger").contains("403"));
    }
    Line::connect(address(126), edge).expect_end();
    wait_for(&proxy, "one refused", |numbers| numbers.streams.refused_source == 1);
    assert!(Line::connect(address(125), edge).options("peer").contains("200"));
}

#[test]
fn where_strangers_get_silence_they_get_no_connection() {
    let mut config = tcp_config(address(127), address(128), "sip:192.0.2.1");
    config.refuse = Refuse::Silence;
    let (proxy, edge) = start(config, &TlsMaterial::default());
    Line::connect(address(129), edge).expect_end();
    wait_for(&proxy, "one refused", |numbers| numbers.streams.refused_source == 1);
    assert!(Line::connect(address(128), edge).options("peer").contains("200"));
    assert_eq!(proxy.numbers().streams.accepted, 1);
}
