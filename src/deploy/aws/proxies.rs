//! What the proxies of a group say of themselves. Their pages are private, so that each is asked on its instance, by Run Command of AWS
//! Systems Manager: `sipedge-proxy status --json`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sipedge_aws::{Aws, AwsError, CommandAnswer};

use super::super::fleet::{Group, Lifecycle, Member, ProxyAnswer, ProxyState};
use crate::plan::Plan;

/// The answers of a group's proxies, kept for a while: they cost a command on each instance.
#[derive(Debug)]
pub(super) struct Proxies {
    asked: Instant,
    answers: BTreeMap<String, Answer>,
}

/// An answer, and transactions that wait for a final response.
type Answer = (ProxyAnswer, Option<u64>);

/// For the whole question. A command takes an agent about a second; who is to see the rest of the status does not wait longer.
const WITHIN: Duration = Duration::from_secs(10);

/// Between two questions of a status that is watched.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Runs as root, whom the control endpoint answers.
const COMMAND: &str = "sipedge-proxy status --json";

/// Stands in the account's command history.
const COMMENT: &str = "sipedge status";

/// Letters of a proxy's or a shell's words that are passed on.
const REASON_LETTERS: usize = 160;

impl Proxies {
    /// The answers of a group's proxies: those that are kept, as long as they are new enough, or else what comes of asking. Never fails: who
    /// could not be asked has the reason for an answer.
    pub(super) fn of(group: &Group, kept: Option<Self>, plan: &Plan, aws: &Aws) -> Self {
        let still_good = kept.filter(|proxies| proxies.asked.elapsed() < ASK_AGAIN);
        still_good.unwrap_or_else(|| Self::ask(group, plan, aws))
    }

    /// Tells each member what its proxy has answered.
    pub(super) fn complete(&self, group: &mut Group) {
        for member in group.instances.iter_mut().filter(|member| is_there(member)) {
            let answer = self.answers.get(&member.id).cloned();
            let (proxy, in_progress) = answer.unwrap_or_else(|| unknown("it is new, and is asked next time"));
            (member.proxy, member.in_progress) = (Some(proxy), in_progress);
        }
    }

    /// Seconds since they answered.
    pub(super) fn age_s(&self) -> u64 {
        self.asked.elapsed().as_secs()
    }

    fn ask(group: &Group, plan: &Plan, aws: &Aws) -> Self {
        let ids: Vec<String> =
            group.instances.iter().filter(|member| is_there(member)).map(|member| member.id.clone()).collect();
        let counts_calls = plan.proxy.trunks.iter().any(|trunk| trunk.limits.calls.is_some());
        let answers = if ids.is_empty() {
            BTreeMap::new()
        } else {
            match aws.run_on(&ids, COMMAND, COMMENT, WITHIN) {
                Ok(answers) => answers
                    .into_iter()
                    .map(|(id, answer)| {
                        (id, answer.map_or_else(|error| unknown(why(&error)), |answer| read(answer, counts_calls)))
                    })
                    .collect(),
                Err(error) => ids.into_iter().map(|id| (id, unknown(why(&error)))).collect(),
            }
        };
        Self { asked: Instant::now(), answers }
    }
}

/// Whether there is somebody to ask.
fn is_there(member: &Member) -> bool {
    member.lifecycle != Lifecycle::Terminated
}

/// What is taken from the proxy's status ([`sipedge_proxy::admin::report::Status`]). An instance may run another version than this program:
/// fields that are not needed are not looked at.
#[derive(Deserialize)]
struct Status {
    readiness: String,
    trouble: Option<String>,
    version: String,
    uptime_s: u64,
    pending_transactions: u64,
    calls: Calls,
    drain: Option<Drain>,
    configuration: Configuration,
}

#[derive(Deserialize)]
struct Calls {
    started: u64,
    counted: u64,
}

#[derive(Deserialize)]
struct Drain {
    since_ms: u64,
}

#[derive(Deserialize)]
struct Configuration {
    hash: String,
}

fn read(answer: CommandAnswer, counts_calls: bool) -> Answer {
    match answer {
        CommandAnswer::Output(text) => match serde_json::from_str::<Status>(&text) {
            Ok(status) => {
                let in_progress = Some(status.pending_transactions);
                let state = ProxyState {
                    state: status.readiness,
                    draining_s: status.drain.map(|drain| drain.since_ms / 1_000),
                    trouble: status.trouble,
                    calls: counts_calls.then_some(status.calls.counted),
                    calls_started: status.calls.started,
                    version: status.version,
                    configuration: status.configuration.hash,
                    uptime_s: status.uptime_s,
                };
                (ProxyAnswer::Known(state), in_progress)
            }
            Err(error) => unknown(format!("`{COMMAND}` answers what this version does not understand: {error}")),
        },
        CommandAnswer::Failed { how, code, error } => {
            let code = code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let said = first_line(&error);
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            unknown(format!("`{COMMAND}` failed there ({how}{code}){said}"))
        }
        CommandAnswer::NotManaged => unknown(
            "not managed by SSM: its agent has not reported yet, or its image has none (the flavour micro, a debian one built without)",
        ),
        CommandAnswer::Silent => unknown("its SSM agent does not report any more: it has no way out, or it is ending"),
        CommandAnswer::Late { taken: true } => unknown(format!(
            "no answer within {} s: its SSM agent has taken the question, and has not ended it",
            WITHIN.as_secs()
        )),
        CommandAnswer::Late { .. } => {
            unknown(format!("no answer within {} s: its SSM agent has not taken the question", WITHIN.as_secs()))
        }
        other => unknown(format!("an answer that this version does not know: {other:?}")),
    }
}

/// Why nobody could be asked.
fn why(error: &AwsError) -> String {
    match error {
        AwsError::AccessDenied { action, .. } => format!("no permission: {action}"),
        other => first_line(&other.to_string()),
    }
}

fn unknown(reason: impl Into<String>) -> Answer {
    (ProxyAnswer::Unknown { unknown: reason.into() }, None)
}

/// The first line that says something, cut where it is long.
fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match line.char_indices().nth(REASON_LETTERS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some fields of a later version, and none of those that are not looked at.
    const LATER: &str = r#"{"readiness":"draining","version":"9.0.0","uptime_s":70,"pending_transactions":3,"novelty":[1],
        "calls":{"started":9,"answered":8,"failed":1,"counted":2,"recorded":0},"drain":{"since_ms":2500,"accept_ms":1},
        "configuration":{"origin":"user-data","hash":"0011223344556677","since":1}}"#;

    #[test]
    fn a_status_of_another_version_is_read() {
        let (answer, in_progress) = read(CommandAnswer::Output(LATER.to_owned()), true);
        let ProxyAnswer::Known(state) = answer else { panic!("{answer:?}") };
        assert_eq!((state.state.as_str(), state.draining_s, state.calls), ("draining", Some(2), Some(2)));
        assert_eq!((state.configuration.as_str(), in_progress), ("0011223344556677", Some(3)));
        let (answer, _) = read(CommandAnswer::Output(LATER.to_owned()), false);
        assert!(matches!(answer, ProxyAnswer::Known(ProxyState { calls: None, .. })), "nobody counts them: {answer:?}");
    }

    #[test]
    fn what_is_no_status_is_said_in_one_line() {
        let failed =
            |error: &str| CommandAnswer::Failed { how: "Failed".to_owned(), code: Some(8), error: error.to_owned() };
        for (answer, words) in [
            (CommandAnswer::Output("{}".to_owned()), "does not understand"),
            (failed("\nsipedge-proxy: nobody listens\nfailed to run commands: exit status 8"), "nobody listens"),
            (failed(&"é".repeat(1_000)), "(Failed, exit code 8): éé"),
            (CommandAnswer::NotManaged, "not managed by SSM"),
            (CommandAnswer::Silent, "does not report any more"),
            (CommandAnswer::Late { taken: false }, "has not taken the question"),
        ] {
            let (ProxyAnswer::Unknown { unknown }, None) = read(answer, true) else { panic!("{words}") };
            assert!(unknown.contains(words), "{unknown}");
            assert!(!unknown.contains('\n') && unknown.chars().count() < 260, "{unknown}");
        }
    }
}
