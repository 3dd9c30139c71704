//! Strangers: scanners hear nothing, the others so much and no more.

use std::time::Instant;

use sipedge_proxy::config::Config;

use crate::peer::Peer;
use crate::stage::{Stage, loopback};

/// Refusals per second and shard that strangers get, and as many at once.
const ANSWERS: u32 = 20;
/// Refused requests of one source that are answered at all.
const OFFENCES: u32 = 30;
/// Requests within dialogs per second and shard from sources that are nobody's.
const IN_DIALOG: u32 = 100;

fn one_shard(config: &mut Config) {
    config.listen.shards = 1;
}

#[test]
fn a_scanner_hears_nothing_and_another_stranger_is_refused() {
    let stage = Stage::start(1, |_| {});
    let stranger = Peer::udp(loopback());
    let scanners =
        ["friendly-scanner", "sipvicious/0.3.4", "SIPCLI/v1.8", "sundayddr", "VaxSIPUserAgent/3.1", "pplsip", "iWar"];
    for name in scanners.iter().chain(&["sip-scan"]) {
        for method in ["OPTIONS", "INVITE", "REGISTER"] {
            let request = stranger.request(method, &stage.uri("100")).and("User-Agent", name);
            stranger.send(&request, stage.edge);
        }
    }
    stage.wait_for_metric("sipedge_dropped_scanner_total", 3 * (scanners.len() as u64 + 1));
    stranger.send(&stranger.request("INVITE", &stage.uri("100")).and("User-Agent", "sipsak 0.9.8"), stage.edge);
    stranger.expect("403");
    assert_eq!(stranger.seen(), ["SIP/2.0 403 Forbidden"]);
    // Of a known peer it is not asked.
    stage.call(&stage.invite().and("User-Agent", "friendly-scanner"));
    stage.callees[0].expect("INVITE");
}

#[test]
fn strangers_together_get_no_more_answers_than_the_bound() {
    let stage = Stage::start(1, one_shard);
    let strangers: Vec<Peer> = (0..20).map(|_| Peer::udp(loopback())).collect();
    let began = Instant::now();
    for stranger in &strangers {
        for _ in 0..10 {
            stranger.send(&stranger.request("INVITE", &stage.uri("100")), stage.edge);
        }
    }
    stage.wait_for_metric("sipedge_refused_source_total", 200);
    let seconds = began.elapsed().as_secs() as u32 + 1;
    let answers: usize = strangers.iter().map(|stranger| stranger.seen().len()).sum();
    assert!(answers > 0 && answers as u32 <= ANSWERS * (seconds + 1), "{answers} answers in {seconds} s");
    let silent = stage.metric("sipedge_dropped_strangers_total");
    assert!(silent >= u64::from(200 - ANSWERS * (seconds + 1)), "{silent}");
    stage.answered_call();
}

#[test]
fn a_source_that_goes_on_is_silenced() {
    let stage = Stage::start(1, one_shard);
    let stranger = Peer::udp(loopback());
    for _ in 0..2 * OFFENCES {
        stranger.send(&stranger.request("INVITE", &stage.uri("100")), stage.edge);
    }
    stage.wait_for_metric("sipedge_dropped_offender_total", u64::from(OFFENCES));
    assert!(stranger.seen().len() <= OFFENCES as usize, "{:?}", stranger.seen());
    // Others are not meant.
    stage.answered_call();
}

#[test]
fn who_holds_a_token_sends_no_flood_through_the_edge() {
    let stage = Stage::start(1, one_shard);
    let (mut dialog, _) = stage.answered_call();
    let stranger = Peer::udp(loopback());
    let began = Instant::now();
    let sent = 4 * IN_DIALOG;
    for _ in 0..sent {
        stranger.send_by_route(&dialog.request(&stranger, "INFO"));
    }
    // What comes after it by the same socket has been dealt with later.
    stage.caller.send_by_route(&dialog.request(&stage.caller, "BYE"));
    stage.callees[0].expect("BYE");
    let seconds = began.elapsed().as_secs() as u32 + 1;
    let passed = stage.callees[0].seen().iter().filter(|start| start.starts_with("INFO")).count() as u32;
    assert!((1..=IN_DIALOG * (seconds + 1)).contains(&passed), "{passed} of {sent} in {seconds} s");
    stage.wait_for_metric("sipedge_dropped_in_dialog_total", u64::from(sent - IN_DIALOG * (seconds + 1)));
}
