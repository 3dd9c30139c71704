//! UPDATE within a dialog that is still early, one of several of its call (RFC 3311).

use sipedge_proxy::config::Select;

use crate::stage::{Dialog, Stage};

#[test]
fn an_update_before_the_answer_finds_its_callee() {
    let stage = Stage::start(2, |config| config.trunks[1].select = Select::All);
    let caller = &stage.caller;
    let invite = stage.invite();
    stage.call(&invite);
    let mut early = Vec::new();
    for callee in &stage.callees {
        let arrived = callee.expect("INVITE");
        let progress = callee.respond(&arrived, "183 Session Progress");
        let got = caller.expect_that("183 of this callee", |it| it.code() == 183 && it.to_tag() == Some(&callee.tag));
        early.push((callee, arrived.clone(), Dialog::of_caller(&invite, &got), Dialog::of_callee(&arrived, &progress)));
    }
    for (callee, _, of_caller, of_callee) in &mut early {
        let update = of_caller.request(caller, "UPDATE").with_body("application/sdp", "v=0\r\no=caller\r\n");
        caller.send_by_route(&update);
        let arrived = callee.expect("UPDATE");
        assert_eq!(arrived.uri(), of_caller.target, "the remote target stays as it is");
        assert_eq!(arrived.body, update.body);
        callee.respond(&arrived, "200 OK");
        caller.expect_that("200 to the UPDATE", |it| it.answers(&update));

        let update = of_callee.request(callee, "UPDATE").with_body("application/sdp", "v=0\r\no=callee\r\n");
        callee.send_by_route(&update);
        let arrived = caller.expect("UPDATE");
        assert_eq!(arrived.uri(), of_callee.target);
        assert_eq!(arrived.body, update.body);
        caller.respond(&arrived, "200 OK");
        callee.expect_that("200 to the UPDATE", |it| it.answers(&update));
    }
    // Each has got one UPDATE: that of its own early dialog.
    for callee in &stage.callees {
        assert_eq!(callee.seen().iter().filter(|start| start.starts_with("UPDATE")).count(), 1, "{:?}", callee.seen());
    }
    // And the call goes on.
    let (callee, arrived, ..) = &early[1];
    callee.respond(arrived, "200 OK");
    caller.expect_that("200 to the INVITE", |it| it.answers(&invite) && it.code() == 200);
}
