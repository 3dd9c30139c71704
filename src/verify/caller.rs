//! The smoke call where another program answers at the called address, such as a load generator in the lab: what the caller's end can
//! prove alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::{Agent, Dialling, Dialog, Invite, Settings};
use super::checks::{ANSWERED, BYE_CALLER, MAIN_PART, SET_UP_DELAY};
use super::report::{CallReport, Check, LadderMessage, Report, milliseconds};
use super::sheet::{Failure, Sheet};
use super::trace::Trace;
use super::{Addresses, Bench, names, not_tried, patience};
use crate::plan::{Plan, VerifyCall};

/// The checks with their titles.
const CHECKS: [(&str, &str); 3] = [
    (ANSWERED, "200 from whoever answers at the destination"),
    (SET_UP_DELAY, "set-up delay within its limit"),
    (BYE_CALLER, "BYE from the caller, 200 back"),
];

/// Places the calls of `plan.verify` by UDP, and expects that somebody answers them. `started` is the time of day as RFC 3339 has it.
///
/// Must not be called inside a tokio runtime, since it brings its own.
pub fn run_caller(plan: &Plan, addresses: &Addresses, bench: &dyn Bench, started: &str) -> Report {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let calls: Vec<CallReport> = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let mut reports = Vec::new();
            for call in &plan.verify.calls {
                let placed = place(plan, addresses, call, bench).await;
                reports.push(placed.unwrap_or_else(|error| not_tried(call, addresses, &error)));
            }
            reports
        }),
        Err(error) => plan.verify.calls.iter().map(|call| not_tried(call, addresses, &error)).collect(),
    };
    Report {
        edge: plan.name.clone(),
        topology: plan.topology,
        target: plan.target,
        started: started.to_owned(),
        took_ms: milliseconds(began.elapsed()),
        passed: !calls.is_empty() && calls.iter().all(|call| call.passed),
        calls,
    }
}

async fn place(
    plan: &Plan,
    addresses: &Addresses,
    call: &VerifyCall,
    bench: &dyn Bench,
) -> std::io::Result<CallReport> {
    let settings = Settings { patience: patience(plan), names: names(plan, addresses), ..Settings::default() };
    let trace = Trace::new();
    let caller = &call.caller;
    let agent = Agent::new(bench.udp_socket(&caller.namespace, caller.address)?, settings, &trace)?;
    let invite = Invite::new(addresses.ingress, &call.number);
    let sheet = Arc::new(Sheet::default());
    if let Some(mut dialog) = set_up(plan, &agent, &invite, &sheet).await {
        let bye = async {
            let expected = "BYE to the callee and its 200 back";
            let cause = "the edge does not take requests of a dialog along, or the callee does not answer them";
            dialog.bye().await.map_err(|error| Failure::new(expected, error.to_string(), cause))
        };
        sheet.check(BYE_CALLER, bye).await;
    }
    let checks: Vec<Check> = CHECKS.iter().map(|(id, title)| sheet.line(id, title, MAIN_PART)).collect();
    let messages = trace.of(&invite.call_id);
    let ladder = messages.into_iter().map(|message| LadderMessage::new(MAIN_PART, message)).collect();
    Ok(CallReport::new(call, addresses, checks, ladder))
}

/// INVITE, 200, ACK; the call, when it is up.
async fn set_up(plan: &Plan, agent: &Agent, invite: &Invite, sheet: &Sheet) -> Option<Dialog> {
    let answered = async {
        let expected = "200 to the INVITE";
        let cause = "the edge does not reach the destination, or nobody answers there";
        let failed = |error: super::agent::AgentError| Failure::new(expected, error.to_string(), cause);
        let mut dialling = Dialling::start(agent, invite).map_err(failed)?;
        let answer = dialling.answered().await.map_err(failed)?;
        let took = answer.at.saturating_duration_since(dialling.sent());
        Ok((dialling.confirm().map_err(failed)?, took))
    };
    let (dialog, took) = sheet.check(ANSWERED, answered).await?;
    let limit = Duration::from_millis(plan.verify.max_setup_ms.into());
    let verdict = if took <= limit {
        Ok(())
    } else {
        let came = format!("{} ms", took.as_millis());
        Err(Failure::new(format!("at most {} ms", limit.as_millis()), came, "the edge or the destination is slow"))
    };
    sheet.judge(SET_UP_DELAY, took, verdict);
    Some(dialog)
}
