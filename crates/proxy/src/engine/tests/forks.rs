//! One INVITE to several destinations at once, and what is easily confused by it.

use super::*;

/// A bench that forks to these targets; names of theirs lead to CALLEE.
fn bench(change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = config();
    config.trunks[1].targets = vec![Target::new("sip:callee.example"), Target::new("sip:198.51.100.2")];
    config.trunks[1].select = Select::All;
    change(&mut config);
    Bench::new(config)
}

fn invites(sent: Vec<Sent>) -> Vec<Sent> {
    sent.into_iter().filter(|one| one.start().starts_with("INVITE ")).collect()
}

#[test]
fn who_loses_a_fork_ends_no_call_that_was_answered() {
    let mut bench = bench(|config| config.trunks[0].limits = Limits { cps: None, calls: Some(1) });
    let sent = bench.receive(Port::Ingress, CALLER, &request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", ""));
    let branches = invites(sent);
    assert_eq!(branches.len(), 2);
    for branch in &branches {
        bench.answer(branch, "180 Ringing");
    }
    let sent = bench.answer(&branches[0], "200 OK");
    assert!(sent.iter().any(|one| one.start() == "SIP/2.0 200 OK"));
    bench.answer(&branches[1], "487 Request Terminated");
    let counters = *bench.engine.counters();
    assert_eq!((counters.calls_answered, counters.calls_failed), (1, 0));
    assert_eq!(bench.engine.gauges().counted_calls, 1, "the call is up, and the limit knows it");
    let second = request("INVITE", "sip:+1555@edge", "z9hG4bKtwo", "", "").replace("call@1", "call@2");
    assert!(Bench::one(bench.receive(Port::Ingress, CALLER, &second)).start().starts_with("SIP/2.0 503"));
}

#[test]
fn two_names_of_one_server_get_one_invite() {
    let mut bench = bench(|config| {
        config.trunks[1].targets = vec![Target::new("sip:callee.example"), Target::new("sip:198.51.100.1")];
    });
    let sent = bench.receive(Port::Ingress, CALLER, &request("INVITE", "sip:+1555@edge", "z9hG4bKone", "", ""));
    assert_eq!(invites(sent).len(), 1);
}

#[test]
fn one_branch_and_sent_by_from_two_peers_are_two_calls() {
    let mut bench = Bench::new({
        let mut config = config();
        config.trunks.push(Trunk { from: vec!["192.0.2.8/32".parse().unwrap()], ..Trunk::new("other") });
        config.routes.push(Route { from: "other".into(), to: "destination".into() });
        config
    });
    let invite = request("INVITE", "sip:+1555@edge", "z9hG4bK-1-1-0", "", "");
    let first = invites(bench.receive(Port::Ingress, CALLER, &invite)).remove(0);
    let other = invite.replace("call@1", "call@2").replace("tag=caller", "tag=other");
    let second = invites(bench.receive(Port::Ingress, "192.0.2.8:5060", &other)).remove(0);
    assert_ne!(first.line("via"), second.line("via"));
    assert_eq!(Bench::one(bench.answer(&first, "180 Ringing")).to, CALLER);
    assert_eq!(Bench::one(bench.answer(&second, "180 Ringing")).to, "192.0.2.8:5060");
    // With the first one's branch the other one cancels its own call alone.
    let cancel = request("CANCEL", "sip:+1555@edge", "z9hG4bK-1-1-0", "", "");
    let sent = bench.receive(Port::Ingress, "192.0.2.8:5060", &cancel.replace("call@1", "call@2"));
    assert!(
        sent.iter().filter(|one| one.start().starts_with("CANCEL")).all(|one| one.line("via") == second.line("via"))
    );
}

#[test]
fn a_caller_without_memory_for_his_branches_is_answered_and_forgotten() {
    let mut bench = bench(|config| {
        config.budgets.message_bytes = 1 << 20;
        config.trunks[1].targets = (1..=8).map(|host| Target::new(format!("sip:198.51.100.{host}"))).collect();
    });
    let body = "b".repeat(60_000);
    let large = |number: usize| {
        request("INVITE", "sip:+1555@edge", &format!("z9hG4bK{number}"), "", "")
            .replace("call@1", &format!("call@{number}"))
            .replace("Content-Length: 4", "Content-Length: 60000")
            .replace("\n\nbody", &format!("\n\n{body}"))
    };
    let mut answered = 0;
    for number in 0..8 {
        let sent = bench.receive(Port::Ingress, CALLER, &large(number));
        answered += sent.iter().filter(|one| one.start().starts_with("SIP/2.0 503")).count();
    }
    let sent = bench.pass(120_000);
    answered += sent.iter().filter(|one| one.start().starts_with("SIP/2.0 408")).count().min(8);
    assert!(answered >= 8, "{answered} of 8 got a final answer");
    let gauges = bench.engine.gauges();
    assert_eq!((gauges.transactions, gauges.pending_transactions, gauges.message_bytes), (0, 0, 0));
}
