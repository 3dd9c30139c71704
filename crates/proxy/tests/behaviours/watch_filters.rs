//! `sipedge-proxy watch` shows what was asked for and nothing else.

use std::path::Path;

use serde_json::Value;

use crate::stage::Stage;
use crate::watching::Watching;

/// A watch of two messages.
fn two(folder: &Path, filter: &[&str]) -> Watching {
    Watching::watch_json(folder, &[filter, &["--count", "2"]].concat())
}

/// Direction and first line of the two messages.
fn shown(watching: Watching) -> Vec<(String, String)> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_else(|| panic!("{event}")).to_owned();
    let events = [watching.event(), watching.event()];
    assert_eq!(watching.event()["reason"], "count");
    events.iter().map(|event| (text(event, "direction"), text(event, "first_line"))).collect()
}

#[test]
fn a_call_a_method_or_a_number() {
    let stage = Stage::start(1, |_| {});
    let message = stage.caller.request("MESSAGE", &stage.uri("+15551234567"));
    let options = stage.caller.request("OPTIONS", &format!("sip:{}", stage.edge));
    let by_call = two(stage.folder(), &["--call-id", options.header("Call-ID")]);
    let by_method = two(stage.folder(), &["--method", "bye,options"]);
    let by_number = two(stage.folder(), &["--number", "555-123-4567"]);

    stage.call(&message);
    stage.callees[0].expect("MESSAGE");
    stage.call(&options);
    stage.caller.expect_that("200 to OPTIONS", |it| it.answers(&options));

    let uri = format!("sip:{}", stage.edge);
    let expected =
        [("in".to_owned(), format!("OPTIONS {uri} SIP/2.0")), ("out".to_owned(), "SIP/2.0 200 OK".to_owned())];
    assert_eq!(shown(by_call), expected);
    assert_eq!(shown(by_method), expected);
    let number = shown(by_number);
    assert_eq!(number[0], ("in".to_owned(), message.start.clone()));
    let sent_on = format!("MESSAGE sip:+15551234567@{} SIP/2.0", stage.callees[0].address);
    assert_eq!(number[1], ("out".to_owned(), sent_on));
}
