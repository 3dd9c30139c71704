//! The renderings of a smoke call's report.

use sipedge::plan::{TargetKind, Topology};
use sipedge::verify::report::{self, LadderEnd};
use sipedge::verify::{CallReport, Check, LadderMessage, Report};

/// A report with a check of each kind, and text that is dangerous in HTML and XML.
fn sample() -> Report {
    let check = |id: &str, passed, tried| Check {
        id: id.to_owned(),
        title: format!("title of {id}"),
        part: "main call".to_owned(),
        passed,
        tried,
        took_ms: 1.5,
        ..Check::default()
    };
    let message = |at_ms, end, sent, start_line: &str, method: &str| LadderMessage {
        part: "main call".to_owned(),
        at_ms,
        end,
        sent,
        from: "198.51.100.1:5060".to_owned(),
        to: "203.0.113.10:5060".to_owned(),
        start_line: start_line.to_owned(),
        method: method.to_owned(),
        raw: format!("{start_line}\r\nSubject: <script>alert(1)</script>\r\n\r\n"),
    };
    Report {
        edge: "bridge<&>".to_owned(),
        topology: Topology::LoadBalanced,
        target: TargetKind::Lab,
        started: "2026-11-20T12:00:00Z".to_owned(),
        took_ms: 410.2,
        passed: false,
        calls: vec![CallReport {
            instance: None,
            from: "source".to_owned(),
            to: "destination".to_owned(),
            caller: "198.51.100.1:5060".to_owned(),
            edge: "203.0.113.10:5060".to_owned(),
            callee: vec!["192.0.2.20:5060".to_owned()],
            passed: false,
            checks: vec![
                check("reached", true, true),
                Check {
                    expected: Some("403 to <stranger>".to_owned()),
                    came: Some("the INVITE arrived".to_owned()),
                    cause: Some("narrow `from`".to_owned()),
                    ..check("stranger-refused", false, true)
                },
                Check { came: Some("not tried".to_owned()), ..check("cancel", false, false) },
            ],
            ladder: vec![
                message(10.0, LadderEnd::Caller, true, "INVITE sip:<x>@192.0.2.1 SIP/2.0", "INVITE"),
                message(10.4, LadderEnd::Callee, false, "INVITE sip:<x>@192.0.2.1 SIP/2.0", "INVITE"),
                message(10.9, LadderEnd::Callee, true, "SIP/2.0 200 OK", "INVITE"),
                message(11.3, LadderEnd::Caller, false, "SIP/2.0 200 OK", "INVITE"),
            ],
        }],
    }
}

#[test]
fn the_terminal_has_a_line_per_check_and_the_ladder() {
    let text = report::terminal(&sample());
    for line in [
        "  ✓ reached                title of reached                                1.5 ms",
        "      cause:    narrow `from`",
        "  ✗ cancel                 title of cancel                              not tried",
        "      0.0 ms │─ INVITE ─────────────────────▶│                               │",
        "      0.4 ms │                               │─ INVITE ─────────────────────▶│",
        "      0.9 ms │                               │◀──────────── 200 OK (INVITE) ─│",
        "      1.3 ms │◀──────────── 200 OK (INVITE) ─│                               │",
        "FAILED: 1 of 3 checks in 410 ms",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
}

#[test]
fn json_reads_back_as_the_same_report() {
    let read: Report = serde_json::from_str(&report::json(&sample())).expect("the report is JSON");
    assert_eq!(read, sample());
}

#[test]
fn junit_has_a_case_per_check_and_tells_failed_from_not_tried() {
    let xml = report::junit(&sample());
    assert!(xml.contains("tests=\"3\"") && xml.contains("failures=\"1\"") && xml.contains("errors=\"1\""), "{xml}");
    assert!(xml.contains("<testcase name=\"stranger-refused\"") && xml.contains("cause: narrow"), "{xml}");
    assert!(!xml.contains("<stranger>"), "{xml}");
}

#[test]
fn html_draws_the_ladder_needs_nothing_from_outside_and_escapes_everything() {
    let page = report::html(&sample()).expect("the page renders");
    assert_eq!(page.matches("<line class=\"arrow").count(), 4, "an arrow per message");
    assert!(page.contains("prefers-color-scheme: dark"));
    for outside in ["<script", "src=", "href=", "@import", "http://", "https://"] {
        assert!(!page.contains(outside), "{outside:?} in the page");
    }
    assert!(!page.contains("bridge<&>") && page.contains("bridge&#60;&#38;&#62;"), "the edge's name is escaped");
    assert!(page.contains("likely cause"));
}
