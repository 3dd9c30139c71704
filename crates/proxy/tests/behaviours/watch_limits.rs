//! Who may watch: four at a time; one that goes away makes room.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::control::{ask, get};
use crate::stage::{DEADLINE, Stage};
use crate::watching::Watching;

/// Waits until so many watch.
pub(crate) fn wait_for_watchers(folder: &Path, number: u64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let watchers = get(folder, "/status")["watchers"].as_u64().unwrap();
        if watchers == number {
            return;
        }
        assert!(Instant::now() < deadline, "{watchers} watch after {DEADLINE:?}, not {number}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_fifth_is_refused_until_one_of_the_four_has_gone() {
    let stage = Stage::start(1, |_| {});
    let folder = stage.folder();
    let mut four: Vec<Watching> = (0..4).map(|_| Watching::watch_json(folder, &[])).collect();
    assert_eq!(get(folder, "/status")["watchers"], 4);

    let (status, out, error) = Watching::start(folder, &["watch"]).finish();
    let refusal = "sipedge-proxy: 4 watch already, and there may be no more at a time: end one of them";
    assert_eq!((status.code(), out, error), (Some(9), vec![], vec![refusal.to_owned()]));
    let file = folder.join("refused.pcapng");
    let (status, ..) = Watching::start(folder, &["capture", file.to_str().unwrap()]).finish();
    assert!(status.code() == Some(9) && !file.exists(), "what is refused leaves no file");
    let (_, out, _) = Watching::start(folder, &["status"]).finish();
    assert!(out.contains(&"watched        messages are shown to 4 watchers".to_owned()), "{out:#?}");

    // It is killed, and no message passes that its connection could fail at.
    drop(four.pop());
    wait_for_watchers(folder, 3);
    four.push(Watching::watch_json(folder, &[]));
}

#[test]
fn a_wish_that_cannot_be_met_is_refused_with_what_would_be_right() {
    let stage = Stage::start(1, |_| {});
    for (body, expected) in [
        (r#"{"seconds": 0}"#, "seconds 0: 1 to 86400"),
        (r#"{"seconds": 86401}"#, "seconds 86401: 1 to 86400"),
        (r#"{"count": 0}"#, "count 0: at least 1"),
        (r#"{"callid": "a"}"#, "the request's body: unknown field `callid`"),
    ] {
        let (status, answer) = ask(stage.folder(), "POST", "/watch", body);
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().starts_with(expected), "{answer}");
    }
    for wrong in [&["--for", "25h"][..], &["--for", "0"], &["--count", "0"]] {
        assert_eq!(Watching::start(stage.folder(), &[&["watch"], wrong].concat()).finish().0.code(), Some(2));
    }
}
