//! A request that comes back to the edge changed is a spiral, which is legal (RFC 3261 §16.3 step 4).

use std::net::SocketAddr;

use sipedge_proxy::config::Config;

use crate::stage::{Dialog, Stage, uri_of};

fn same_carrier(config: &mut Config) {
    let proxy: SocketAddr = config.trunks[1].targets[0].uri.strip_prefix("sip:").unwrap().parse().unwrap();
    config.trunks[0].from.push(proxy.ip().into());
}

/// Bob's proxy sends Bob's calls on to Carol, by way of the edge.
#[test]
fn a_spiral_passes_twice() {
    let stage = Stage::start(1, same_carrier);
    let (caller, [proxy]) = (&stage.caller, stage.callees());
    let invite = stage.invite();
    stage.call(&invite);
    let first = proxy.expect("INVITE sip:bob@");
    proxy.send(&first.forwarded_by(proxy.address, &stage.uri("carol")), stage.edge);
    let second = proxy.expect("INVITE sip:carol@");
    assert_eq!(second.header("Max-Forwards").parse::<u32>().unwrap() + 3, 70);
    assert_eq!(second.elements("Via").len(), 4, "caller, edge, proxy, edge: {}", second.text());
    assert_eq!(second.elements("Record-Route").len(), 2, "{}", second.text());

    // Carol, who is at the proxy, answers.
    let answer = proxy.response(&second, "200 OK");
    proxy.reply(&second, &answer);
    let through = proxy.expect("200 OK");
    proxy.reply(&first, &through.without_top_via());
    let ok = caller.expect("200 OK");
    assert_eq!(ok.elements("Via").len(), 1);
    let mut dialog = Dialog::of_caller(&invite, &ok);
    caller.send_by_route(&dialog.ack(caller));
    let ack = proxy.expect("ACK");
    assert_eq!(ack.uri(), uri_of(answer.header("Contact")));
    assert!(!ack.has("Route"), "both routes are the edge's: {}", ack.text());
    let bye = dialog.request(caller, "BYE");
    caller.send_by_route(&bye);
    let arrived = proxy.expect("BYE");
    proxy.respond(&arrived, "200 OK");
    caller.expect_that("200 to the BYE", |it| it.answers(&bye));
    assert_eq!(stage.metric("sipedge_loops_total"), 0);
}

#[test]
fn each_passage_has_a_branch_of_its_own() {
    let stage = Stage::start(1, same_carrier);
    let [proxy] = stage.callees();
    stage.call(&stage.invite());
    let mut branches = Vec::new();
    let mut arrived = proxy.expect("INVITE sip:bob@");
    branches.push(arrived.branch().to_owned());
    for user in ["carol", "dave", "erin"] {
        proxy.send(&arrived.forwarded_by(proxy.address, &stage.uri(user)), stage.edge);
        arrived = proxy.expect(&format!("INVITE sip:{user}@"));
        branches.push(arrived.branch().to_owned());
    }
    let own: Vec<&str> =
        arrived.elements("Via").into_iter().filter(|via| via.contains(&stage.edge.to_string())).collect();
    assert_eq!(own.len(), branches.len());
    branches.sort_unstable();
    branches.dedup();
    assert_eq!(branches.len(), own.len(), "{branches:?}");
}
