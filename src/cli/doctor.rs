//! `sipedge doctor`: what a deploy needs, checked before it needs it.

use std::time::SystemTime;

use serde_json::json;
use sipedge::doctor::{self, Check, Health};

use super::Global;
use super::exit::{self, Exit, Failure};

pub(super) fn run(global: &Global) -> Result<Exit, Failure> {
    let checks = doctor::examine(&global.spec, global.target.map(Into::into), SystemTime::now());
    let worst = doctor::worst(&checks);
    if global.json {
        exit::print_json(&json!({ "state": worst, "checks": checks }))?;
    } else {
        exit::print(&checks.iter().map(line).collect::<String>())?;
    }
    Ok(if worst == Health::Problem { Exit::TargetNotAvailable } else { Exit::Done })
}

fn line(check: &Check) -> String {
    let state = match check.state {
        Health::Ok => "ok",
        Health::Warning => "warning",
        Health::Problem => "problem",
    };
    let mut text = format!("{state:<8} {:<15} {}\n", check.topic, check.says.replace('\n', &format!("\n{:<25}", "")));
    if let Some(command) = &check.confirm {
        text.push_str(&format!("{:<25}$ {command}\n", ""));
    }
    text
}
