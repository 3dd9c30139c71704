//! Provisional responses: those of every branch go on at once, 100 is hop by hop (RFC 3261 §16.7 step 5, §8.2.6).

use sipedge_proxy::config::Select;

use crate::stage::Stage;

#[test]
fn the_18x_of_every_branch_reach_the_caller() {
    let stage = Stage::start(2, |config| config.trunks[1].select = Select::All);
    let (caller, [first, second]) = (&stage.caller, stage.callees());
    stage.call(&stage.invite());
    let arrived = [first, second].map(|callee| callee.expect("INVITE"));
    let steps =
        [(0, "180 Ringing"), (1, "183 Session Progress"), (1, "180 Ringing"), (0, "181 Call Is Being Forwarded")];
    for (place, status) in steps {
        let callee = &stage.callees[place];
        callee.respond(&arrived[place], status);
        let got = caller.expect(status);
        assert_eq!(got.to_tag(), Some(callee.tag.as_str()), "each branch is an early dialog of its own");
        assert_eq!(got.header("Record-Route"), arrived[place].header("Record-Route"));
    }
    // The same 18x again goes on again: it may carry a new RSeq, and the caller's timers are reset by it.
    let again = first.respond(&arrived[0], "182 Queued");
    let got = caller.expect("182");
    first.reply(&arrived[0], &again);
    caller.expect_copy(&got);
}

#[test]
fn a_100_is_never_passed_on() {
    let stage = Stage::start(1, |_| {});
    let (caller, [callee]) = (&stage.caller, stage.callees());
    stage.call(&stage.invite());
    let arrived = callee.expect("INVITE");
    callee.reply(&arrived, &callee.response(&arrived, "100 Trying").and("X-From", "the callee"));
    callee.respond(&arrived, "180 Ringing");
    caller.expect("180");
    let own = caller.expect("100");
    assert!(!own.has("X-From"), "{}", own.text());
    let count = caller.seen().iter().filter(|start| start.contains(" 100 ")).count();
    assert_eq!(count, 1, "{:?}", caller.seen());
}

#[test]
fn our_100_has_the_timestamp_and_no_tag() {
    let stage = Stage::start(1, |_| {});
    stage.call(&stage.invite().and("Timestamp", "54.7"));
    let trying = stage.caller.expect("100");
    assert_eq!(trying.header("Timestamp"), "54.7");
    assert_eq!(trying.to_tag(), None);
}
