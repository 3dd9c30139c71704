//! `sipedge capacity`.

use serde_json::json;
use sipedge::capacity::{self, MOST_CPS, MOST_SECONDS};

use super::exit::{self, Exit, Failure};
use super::{Capacity, Global};

pub(super) fn run(global: &Global, args: &Capacity) -> Result<Exit, Failure> {
    let figures = capacity::figures()
        .ok_or_else(|| Failure::new(Exit::Unexpected, "this build has no measured figures".to_owned()))?;
    let (Some(cps), Some(duration_s)) = (args.cps, args.duration) else {
        let types = capacity::types(figures);
        if global.json {
            exit::print_json(&json!({ "types": types, "figures": figures }))?;
        } else {
            exit::print(&capacity::types_text(&types, figures))?;
        }
        return Ok(Exit::Done);
    };
    let answer = capacity::answer(figures, cps, duration_s);
    if answer.choices.is_empty() {
        let message = format!("no edge of sipedge's carries {cps} calls per second; split them over several edges");
        return Err(
            Failure::new(Exit::Usage, message).next("sipedge capacity", "shows what each instance type carries")
        );
    }
    if global.json {
        exit::print_json(&json!(answer))?;
    } else {
        exit::print(&capacity::answer_text(&answer))?;
    }
    Ok(Exit::Done)
}

/// Calls per second, such as `25` or `0.5`.
pub(super) fn cps(text: &str) -> Result<f64, String> {
    within(text, MOST_CPS, "calls per second")
}

/// Seconds of a call.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    within(text, MOST_SECONDS, "seconds")
}

fn within(text: &str, most: f64, what: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= most);
    number.ok_or_else(|| format!("{what} are a number above 0, at most {most}"))
}
