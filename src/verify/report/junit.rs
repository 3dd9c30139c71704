//! The report as JUnit XML: a suite per route, a case per check.

use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{Check, Report};

/// The report as JUnit XML. What was not tried is an error, what failed a failure.
pub fn junit(report: &Report) -> String {
    let mut document = quick_junit::Report::new(format!("smoke call of {} ({})", report.edge, report.topology));
    document.set_time(duration(report.took_ms));
    for call in &report.calls {
        let mut suite = TestSuite::new(format!("{} → {}", call.from, call.to));
        suite.set_time(duration(call.checks.iter().map(|check| check.took_ms).sum()));
        for check in &call.checks {
            let mut case = TestCase::new(check.id.clone(), status(check));
            case.set_classname(format!("{}.{}", report.edge, report.topology)).set_time(duration(check.took_ms));
            suite.add_test_case(case);
        }
        document.add_test_suite(suite);
    }
    // Writing to memory fails only on text that XML cannot hold, which the crate filters out.
    document.to_string().unwrap_or_default()
}

fn status(check: &Check) -> TestCaseStatus {
    if check.passed {
        return TestCaseStatus::success();
    }
    let kind = if check.tried { NonSuccessKind::Failure } else { NonSuccessKind::Error };
    let mut status = TestCaseStatus::non_success(kind);
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    status.set_message(format!("{}: {}", check.title, text(&check.came)));
    status.set_description(format!(
        "expected: {}\ncame: {}\ncause: {}",
        text(&check.expected),
        text(&check.came),
        text(&check.cause)
    ));
    status
}

fn duration(milliseconds: f64) -> Duration {
    Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or_default()
}
