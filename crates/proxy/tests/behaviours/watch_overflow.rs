//! Somebody watches and takes nothing: calls do not notice, and whoever looks again is told how much is missing.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::control::SOCKET;
use crate::process::load::{Callee, Load};
use crate::process::{INGRESS, Process, config, metric, wait_for_readyz};
use crate::stage::{DEADLINE, loopback};

/// Calls per second, and for how long: some 4,000 messages, twice what may wait for a watcher.
const RATE: f64 = 100.0;
const TIME: Duration = Duration::from_secs(3);

#[test]
fn calls_go_on_and_what_is_left_out_is_counted() {
    let (edge, caller) = (loopback(), loopback());
    let callee = Callee::start(loopback());
    let config = config(edge, caller, callee.address);
    let (mut process, folder) = Process::run(&config);
    wait_for_readyz(edge, 200, &mut process);
    let passed = || metric(edge, "sipedge_messages_received_total") + metric(edge, "sipedge_messages_sent_total");

    let mut stream = UnixStream::connect(folder.path().join(SOCKET)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let body = r#"{"full": true, "seconds": 3600}"#;
    write!(stream, "POST /watch HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut events = std::iter::from_fn(|| {
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the answer has ended");
            // Between the lines of JSON stand the lengths of chunks.
            if let Ok(Value::Object(event)) = serde_json::from_str(&line) {
                return Some(event);
            }
        }
    });
    assert_eq!(events.next().unwrap()["event"], "begin");
    assert_eq!(passed(), 0);

    let mut load = Load::new(caller, (edge, INGRESS).into());
    let begun = Instant::now();
    load.run(RATE, TIME);
    load.settle();
    let share = load.share(begun, Instant::now());
    assert!(share.calls as f64 > 0.8 * RATE * TIME.as_secs_f64(), "{share:?}");
    assert_eq!(share.done, 1.0, "{share:?}");

    // Numbers are published a little after the event.
    let mut all = passed();
    loop {
        std::thread::sleep(Duration::from_millis(1_200));
        let now = passed();
        if now == all {
            break;
        }
        all = now;
    }
    let (mut shown, mut lost) = (0, 0);
    while shown + lost < all {
        let event = events.next().unwrap();
        match event["event"].as_str().unwrap() {
            "message" => shown += 1,
            "lost" => lost += event["messages"].as_u64().unwrap(),
            other => panic!("{other} after {shown} messages and {lost} that are lost, of {all}"),
        }
    }
    println!("{all} messages: {shown} shown, {lost} left out");
    assert_eq!(shown + lost, all);
    assert!(lost > 0 && shown > 2_000, "{shown} shown, {lost} left out");
}
