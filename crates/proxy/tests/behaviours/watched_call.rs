//! A call as `sipedge-proxy watch` shows it.

use crate::stage::Stage;
use crate::watching::Watching;

#[test]
fn each_message_of_a_call_is_shown_as_it_comes_and_as_it_goes() {
    let stage = Stage::start(1, |_| {});
    let watching = Watching::watch(stage.folder(), &["--count", "7"]);
    let (dialog, _) = stage.answered_call();
    let (status, out, error) = watching.finish();
    assert_eq!(
        (status.code(), error),
        (Some(0), vec!["7 messages; that is as many as were asked for (--count)".to_owned()])
    );

    let egress = std::net::SocketAddr::new(stage.edge.ip(), crate::stage::EGRESS);
    let (caller, callee, edge) = (stage.caller.address, stage.callees[0].address, stage.edge);
    let call_id = format!("  Call-ID: {}", dialog.call_id);
    let expected = [
        (format!("in  udp {caller} -> {edge}  INVITE sip:bob@{edge} SIP/2.0"), ""),
        (format!("out udp {edge} -> {caller}  SIP/2.0 100 "), "Trying"),
        (format!("out udp {egress} -> {callee}  INVITE sip:bob@{callee} SIP/2.0"), ""),
        (format!("in  udp {callee} -> {egress}  SIP/2.0 200 OK"), ""),
        (format!("out udp {edge} -> {caller}  SIP/2.0 200 OK"), ""),
        (format!("in  udp {caller} -> {edge}  ACK sip:bob@{callee} SIP/2.0"), ""),
        (format!("out udp {egress} -> {callee}  ACK sip:bob@{callee} SIP/2.0"), ""),
    ];
    assert_eq!(out.len(), expected.len(), "{out:#?}");
    for (line, (start, rest)) in out.iter().zip(expected) {
        let (time, shown) = line.split_once(' ').unwrap();
        assert_eq!(shown, format!("{start}{rest}{call_id}"));
        let digits: Vec<&str> = time.split([':', '.']).collect();
        assert_eq!(digits.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 2, 2, 6], "{time}");
    }
    assert!(out.is_sorted() || out[0].starts_with("23:59"), "{out:#?}");
}

#[test]
fn what_strangers_write_does_nothing_to_a_terminal_and_noise_is_shown_with_its_fault() {
    let stage = Stage::start(1, |_| {});
    let watching = Watching::watch(stage.folder(), &["--full", "--for", "1h"]);
    stage.caller.send_bytes(b"\r\n\r\n", stage.edge);
    stage.caller.send_bytes(b"\x1b[2J\xff hello\r\n\x1b]0;title\x07", stage.edge);
    let line = watching.line();
    let (_, shown) = line.split_once(' ').unwrap();
    assert_eq!(
        shown,
        format!(
            "in  udp {} -> {}  \\u{{1b}}[2J\u{fffd} hello  malformed: the first line is neither a request line nor a status line of \
             SIP/2.0",
            stage.caller.address, stage.edge
        )
    );
    assert_eq!(watching.line(), "  \\u{1b}[2J\u{fffd} hello");
    assert_eq!(watching.line(), "  \\u{1b}]0;title\\u{7}");
    assert_eq!(watching.line(), "");
    watching.interrupt();
    let (status, out, _) = watching.finish();
    assert_eq!((status.code(), out), (Some(0), vec![]));
}

#[test]
fn the_time_ends_a_watch() {
    let stage = Stage::start(1, |_| {});
    let watching = Watching::watch_json(stage.folder(), &["--for", "1s"]);
    let end = serde_json::json!({"event": "end", "reason": "time", "shown": 0, "lost": 0});
    assert_eq!(watching.event(), end);
    assert_eq!(watching.finish().0.code(), Some(0));
}
