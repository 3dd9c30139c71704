//! The control endpoint's answers for people.

use std::fmt::Write;

use super::report::{Destination, Drain, Effective, Reload, Status};
use super::watched::{Passed, WatchEvent};
use crate::config::Config;

/// The state of a proxy, one line for each concern. `now`: seconds since the Unix epoch.
pub fn status(status: &Status, now: u64) -> String {
    let mut lines = Lines(String::new());
    let ago = |moment: u64| duration(now.saturating_sub(moment));
    lines.add("edge", &status.edge);
    let state = match (&*status.readiness, &status.trouble) {
        ("waiting", Some(reason)) => format!("not ready: {reason}"),
        (readiness, Some(trouble)) => format!("{readiness}, but {trouble}"),
        (readiness, None) => readiness.to_owned(),
    };
    lines.add("state", state);
    if let Some(drain) = &status.drain {
        lines.add("drain", self::drain(drain));
    }
    lines.add(
        "process",
        format!("sipedge-proxy {}, pid {}, up for {}", status.version, status.pid, duration(status.uptime_s)),
    );
    lines.add(
        "addresses",
        format!(
            "requests arrive at {}, leave from {}; advertises {}",
            status.ingress, status.egress, status.advertised
        ),
    );
    let calls = status.calls;
    lines.add(
        "calls",
        format!(
            "{} started, {} answered, {} failed; {} counted by limits now",
            calls.started, calls.answered, calls.failed, calls.counted
        ),
    );
    lines.add(
        "transactions",
        format!(
            "{}, of which {} wait for a final response; on {}",
            status.transactions,
            status.pending_transactions,
            count(status.shards as u64, "shard")
        ),
    );
    if status.watchers > 0 {
        lines.add("watched", format!("messages are shown to {}", count(status.watchers as u64, "watcher")));
    }
    let configuration = &status.configuration;
    lines.add(
        "configuration",
        format!("{} ({}), in force for {}", configuration.origin, configuration.hash, ago(configuration.since)),
    );
    let reloads = &status.reloads;
    let mut text = format!("{} taken up, {} refused", reloads.done, reloads.refused);
    if let Some(last) = &reloads.last {
        let outcome = if last.reasons.is_empty() { "taken up" } else { "refused" };
        let _ = write!(text, "; the last ({}) {} ago: {outcome}", last.trigger, ago(last.at));
    }
    lines.add("reloads", text);
    for reason in reloads.last.iter().flat_map(|last| &last.reasons) {
        lines.add("", reason);
    }
    let secrets = &status.secrets;
    let keys: Vec<String> = secrets
        .token_keys
        .iter()
        .map(|key| format!("{} {}, {} old", key.id, if key.signs { "signs" } else { "verifies" }, ago(key.since)))
        .collect();
    lines.add("token keys", keys.join("; "));
    let looks = match secrets.poll_s {
        0 => "on a reload alone".to_owned(),
        seconds => format!("every {}", duration(seconds.into())),
    };
    let text = format!(
        "looked at {looks}, the last time {} ago; {} taken up, {} refused",
        ago(secrets.looked_at),
        count(secrets.changes, "change"),
        secrets.refused
    );
    lines.add("secrets", text);
    if let Some(trouble) = &secrets.trouble {
        lines.add("", trouble);
    }
    lines.0
}

/// Destinations as a table.
pub fn destinations(destinations: &[Destination]) -> String {
    if destinations.is_empty() {
        return "no destination is known: no trunk has targets, or their names have no address yet\n".to_owned();
    }
    let mut rows =
        vec![["TRUNK", "TRANSPORT", "ADDRESS", "HEALTH", "MARK", "CALLS", "TARGET", "LAST CHANGE"].map(str::to_owned)];
    rows.extend(destinations.iter().map(|destination| {
        let health = match destination.avoided_ms {
            Some(ms) => format!("{} for {}", destination.health, duration(ms.div_ceil(1_000))),
            None => destination.health.clone(),
        };
        [
            destination.trunk.clone(),
            destination.transport.clone(),
            destination.address.to_string(),
            health,
            destination.mark.clone(),
            if destination.takes_calls { "taken" } else { "none" }.to_owned(),
            destination.target.clone(),
            destination.changed_s.map_or(String::new(), |s| format!("{} ago: {}", duration(s), destination.reason)),
        ]
    }));
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            let _ = write!(line, "{cell:<0$}  ", width.unwrap_or_default());
        }
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}

/// What a mark means.
pub fn marked(marked: &[Destination]) -> String {
    let effect = match marked.first().map(|destination| &*destination.mark) {
        Some("draining") => "it gets no new calls; its calls in progress go on",
        Some("down") => "it counts as down, whatever it answers",
        _ => "its health decides",
    };
    format!("{}{effect}\n", destinations(marked))
}

/// A configuration that was taken up.
pub fn reload(reload: &Reload) -> String {
    let changed = match reload.changed.as_slice() {
        [] => "nothing has changed".to_owned(),
        changed => format!("changed: {}", changed.join(", ")),
    };
    let configuration = &reload.configuration;
    let mut text = format!("in force: {} ({}); {changed}\n", configuration.origin, configuration.hash);
    for consequence in &reload.consequences {
        let _ = writeln!(text, "note: {consequence}");
    }
    text
}

/// A drain.
pub fn drain(drain: &Drain) -> String {
    let left = |ms: u32| duration(u64::from(ms).saturating_sub(drain.since_ms).div_ceil(1_000));
    let new_calls = if drain.since_ms < u64::from(drain.accept_ms) {
        format!("new calls are taken for {} yet", left(drain.accept_ms))
    } else {
        "new calls get 503".to_owned()
    };
    format!(
        "{} in progress; {new_calls}; the process ends when none is left, in {} at the latest",
        count(drain.pending_transactions, "transaction"),
        left(drain.grace_ms)
    )
}

/// The effective configuration as the YAML that the proxy reads.
pub fn config(effective: &Effective) -> String {
    let in_force = &effective.in_force;
    let mut text = format!(
        "# {} ({}), with all defaults. The secrets that it names are in {}.\n",
        in_force.origin, in_force.hash, effective.secrets
    );
    // A proxy of another version may have settings that this one does not know: then as they came.
    let settings: Result<Config, _> = serde_json::from_value(effective.config.clone());
    let yaml = settings.ok().and_then(|config| serde_yaml::to_string(&config).ok());
    text.push_str(&yaml.unwrap_or_else(|| format!("{:#}\n", effective.config)));
    text
}

/// A message that has passed: a line, and the message below it when it is there. The time is UTC.
pub fn passed(passed: &Passed) -> String {
    let (seconds, us) = (passed.time_us / 1_000_000, passed.time_us % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let Passed { direction, transport, source, destination, .. } = passed;
    let first_line = printable(&passed.first_line);
    let mut text = format!(
        "{hour:02}:{minute:02}:{second:02}.{us:06} {direction:<3} {transport} {source} -> {destination}  {first_line}"
    );
    if let Some(call_id) = &passed.call_id {
        let _ = write!(text, "  Call-ID: {}", printable(call_id));
    }
    if let Some(reason) = &passed.malformed {
        let _ = write!(text, "  malformed: {reason}");
    }
    text.push('\n');
    if let Some(bytes) = passed.bytes() {
        for line in String::from_utf8_lossy(&bytes).lines() {
            let _ = writeln!(text, "  {}", printable(line));
        }
        text.push('\n');
    }
    text
}

/// What happens to a watch, apart from messages.
pub fn watch_event(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Begin { edge } => format!("watching {edge}; Ctrl-C ends it\n"),
        WatchEvent::Message(message) => passed(message),
        WatchEvent::Lost { messages } => format!("{}: they came too fast\n", not_shown(*messages)),
        WatchEvent::End { reason, shown, lost } => {
            let lost = if *lost > 0 { format!("; {}", not_shown(*lost)) } else { String::new() };
            format!("{}{lost}; {}\n", count(*shown, "message"), why(reason))
        }
    }
}

/// What a capture came to.
pub fn captured(messages: u64, lost: u64, bytes: u64, ended: &str) -> String {
    let lost =
        if lost > 0 { format!("; {} are missing: they came too fast", count(lost, "message")) } else { String::new() };
    format!("{}, {bytes} bytes{lost}; {}", count(messages, "message"), why(ended))
}

/// Why a watch or a capture is over.
fn why(ended: &str) -> &str {
    match ended {
        "time" => "the time is over (--for)",
        "count" => "that is as many as were asked for (--count)",
        "size" => "the file has the size that it may have (--max-mb)",
        other => other,
    }
}

/// Text of strangers for a terminal: nothing in it moves the cursor or changes the screen.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            printable.extend(letter.escape_default());
        } else {
            printable.push(letter);
        }
    }
    printable
}

fn not_shown(messages: u64) -> String {
    format!("{} {} not shown", count(messages, "message"), if messages == 1 { "was" } else { "were" })
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name:<13}  {text}");
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Seconds in the two largest units.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units {
        if left >= size {
            parts.push(format!("{} {unit}", left / size));
            left %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7_200, "2 h"), (90_061, "1 d 1 h"), (86_405, "1 d 5 s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_drain_says_what_is_left_of_it() {
        let mut progress = Drain { pending_transactions: 1, since_ms: 20_000, accept_ms: 60_000, grace_ms: 900_000 };
        assert_eq!(
            drain(&progress),
            "1 transaction in progress; new calls are taken for 40 s yet; the process ends when none is left, in 14 min 40 s at the \
             latest"
        );
        progress.since_ms = 61_000;
        assert!(drain(&progress).contains("; new calls get 503; "), "{}", drain(&progress));
    }
}
