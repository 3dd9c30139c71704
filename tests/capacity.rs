//! `sipedge capacity`: what carries so many calls, what it was worked out from, and what is no question. The table in `docs/capacity.md` is the
//! command's own; `UPDATE_GOLDEN=1` writes it anew.

#[path = "support/project.rs"]
mod support;

use std::fs;

use serde_json::json;
use support::{Project, repository};

/// Around the table in the page.
const FENCE: (&str, &str) = ("<!-- printed by: sipedge capacity -->\n```text\n", "```");

#[test]
fn the_page_shows_what_the_command_prints() {
    let printed = Project::new().run(&["capacity"]).expect(0).stdout;
    let path = repository().join("docs/capacity.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(FENCE.0).expect("the table's beginning");
    let (shown, after) = rest.split_once(FENCE.1).expect("the table's end");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, [before, FENCE.0, &printed, FENCE.1, after].concat()).expect("written");
    } else {
        assert_eq!(shown, printed, "UPDATE_GOLDEN=1 cargo test --test capacity writes the page anew");
    }
    assert!(printed.contains("t3.small") && printed.contains("Measured 20"), "{printed}");
    assert!(!printed.contains("t4g"), "the image is for x86-64: {printed}");
}

#[test]
fn what_is_suggested_carries_the_calls_even_without_a_zone() {
    let project = Project::new();
    for (cps, duration) in [(25.0, 180.0), (0.5, 60.0), (5_000.0, 240.0)] {
        let (rate, length) = (cps.to_string(), duration.to_string());
        let answer = project.run(&["capacity", "--cps", &rate, "--duration", &length, "--json"]).expect(0).json();
        assert_eq!(answer["calls"], json!(cps * duration), "calls in progress are rate times duration: {answer}");
        let choices = answer["choices"].as_array().expect("a list");
        assert!(choices.iter().any(|choice| choice["topology"] == "load-balanced"), "{answer}");
        for choice in choices {
            let least = choice["cps_without_a_zone"].as_f64().or(choice["cps"].as_f64()).expect("a number");
            assert!(least >= cps, "{choice}");
        }
        assert!(answer["figures"]["as_of"].as_str().is_some_and(|day| day.len() == 10), "{answer}");
    }
    let text = project.run(&["capacity", "--cps", "25", "--duration", "180"]).expect(0).stdout;
    for part in ["4,500 calls in progress", "single-ec2", "load-balanced", "without one of 3 zones", "Measured 20"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn what_is_no_question_is_refused() {
    let project = Project::new();
    for arguments in [
        vec!["--cps", "25"],
        vec!["--duration", "60"],
        vec!["--cps", "0", "--duration", "60"],
        vec!["--cps", "NaN", "--duration", "60"],
        vec!["--cps", "inf", "--duration", "60"],
        vec!["--cps=-3", "--duration", "60"],
        vec!["--cps", "25", "--duration", "1e9"],
        vec!["--cps", "many", "--duration", "60"],
    ] {
        let arguments: Vec<&str> = ["capacity", "--json"].iter().chain(&arguments).copied().collect();
        let error = project.run(&arguments).expect(2).json_error();
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
    let error = project.run(&["capacity", "--json", "--cps", "10000000", "--duration", "60"]).expect(2).json_error();
    assert_eq!(error["next"][0]["command"], "sipedge capacity");
}
