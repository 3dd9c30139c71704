use std::fmt::Write;

use crate::admin::report::{Configuration, Destination, Secrets, TokenKeyStatus};
use crate::net::Numbers;

/// What the metrics page says of the process itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// When it started, in seconds since the Unix epoch.
    pub started_at: u64,
    /// Whether `/readyz` is 200.
    pub ready: bool,
    /// Whether it is leaving.
    pub draining: bool,
    /// Whether the control endpoint is there.
    pub control: bool,
    /// The configuration in force.
    pub in_force: Configuration,
    /// Configurations taken up since the start.
    pub reloads: u64,
    /// Configurations refused since the start.
    pub reloads_refused: u64,
    /// The secrets in force.
    pub secrets: Secrets,
}

/// The metrics page, in Prometheus's text format. Counters end in `_total`, gauges do not. `destinations` are sorted.
pub fn metrics(process: &Process, numbers: &Numbers, destinations: &[Destination]) -> String {
    let mut page = Page(String::with_capacity(8 << 10));
    for (name, help, value) in numbers.counters.each() {
        page.add(&format!("sipedge_{name}_total"), "counter", help, value);
    }
    for (name, help, value) in numbers.gauges.each() {
        page.add(&format!("sipedge_{name}"), "gauge", help, value);
    }
    for (name, help, value) in numbers.net.each() {
        page.add(&format!("sipedge_net_{name}_total"), "counter", help, value);
    }
    for (name, help, value) in numbers.streams.each() {
        page.add(&format!("sipedge_stream_{name}_total"), "counter", help, value);
    }
    for (name, help, value) in numbers.stream_gauges.each() {
        page.add(&format!("sipedge_stream_{name}"), "gauge", help, value);
    }
    let receive = "Receive buffers that the kernel granted to all sockets together, in bytes.";
    page.add("sipedge_net_receive_buffer_bytes", "gauge", receive, numbers.receive_buffer_bytes);
    page.add("sipedge_shards", "gauge", "Threads that handle SIP.", numbers.shards);
    page.add("sipedge_ready", "gauge", "1 after the self-call and until the drain.", u64::from(process.ready));
    page.add("sipedge_draining", "gauge", "1 from SIGTERM on.", u64::from(process.draining));
    page.add("sipedge_control", "gauge", "1 when the control endpoint is there.", u64::from(process.control));
    page.add("sipedge_reloads_total", "counter", "Configurations taken up since the start.", process.reloads);
    let refused = "Configurations refused since the start; the one of before stayed in force.";
    page.add("sipedge_reloads_refused_total", "counter", refused, process.reloads_refused);
    let since = "When the configuration in force was taken up, in seconds since the Unix epoch.";
    page.add("sipedge_configuration_time_seconds", "gauge", since, process.in_force.since);
    let configuration = labelled("sipedge_configuration_info", &[("hash", &process.in_force.hash)]);
    page.add(&configuration, "gauge", "The configuration in force; always 1.", 1);
    let started = "When the proxy started, in seconds since the Unix epoch.";
    page.add("sipedge_start_time_seconds", "gauge", started, process.started_at);
    let build = labelled("sipedge_build_info", &[("version", env!("CARGO_PKG_VERSION"))]);
    page.add(&build, "gauge", "Version of this build; always 1.", 1);
    page.add_secrets(&process.secrets);
    page.add_destinations(destinations);
    page.0
}

struct Page(String);

impl Page {
    fn add(&mut self, sample: &str, kind: &str, help: &str, value: u64) {
        self.describe(sample.split('{').next().unwrap_or(sample), kind, help);
        self.sample(sample, value);
    }

    fn add_secrets(&mut self, secrets: &Secrets) {
        let looked = "When the secrets were last read and understood, in seconds since the Unix epoch.";
        self.add("sipedge_secrets_looked_time_seconds", "gauge", looked, secrets.looked_at);
        let changes = "Changes of the secrets that were taken up since the start, reloads apart.";
        self.add("sipedge_secrets_changes_total", "counter", changes, secrets.changes);
        let refused = "Changes of the secrets that were refused since the start; those of before stayed in force.";
        self.add("sipedge_secrets_refused_total", "counter", refused, secrets.refused);
        let missed = "Looks at the secrets since the start at which they could not be read.";
        self.add("sipedge_secrets_missed_total", "counter", missed, secrets.missed);
        let id = |key: &TokenKeyStatus| key.id.to_string();
        let info = |key: &TokenKeyStatus| {
            let signs = if key.signs { "1" } else { "0" };
            (labelled("sipedge_token_key_info", &[("id", &id(key)), ("signs", signs)]), 1)
        };
        let help = "A key of route tokens, and whether it signs new ones; all of them verify. Always 1.";
        self.add_each("sipedge_token_key_info", help, secrets.token_keys.iter().map(info));
        let since = |key: &TokenKeyStatus| (labelled("sipedge_token_key_time_seconds", &[("id", &id(key))]), key.since);
        let help = "When a key of route tokens was made, in seconds since the Unix epoch.";
        self.add_each("sipedge_token_key_time_seconds", help, secrets.token_keys.iter().map(since));
    }

    /// Samples of one gauge.
    fn add_each(&mut self, name: &str, help: &str, samples: impl Iterator<Item = (String, u64)>) {
        self.describe(name, "gauge", help);
        for (sample, value) in samples {
            self.sample(&sample, value);
        }
    }

    fn add_destinations(&mut self, destinations: &[Destination]) {
        let name = "sipedge_destination_up";
        let mut samples: Vec<(String, bool)> = Vec::with_capacity(destinations.len());
        for destination in destinations {
            let address = destination.address.to_string();
            let labels =
                [("trunk", &*destination.trunk), ("transport", &*destination.transport), ("address", &*address)];
            let sample = labelled(name, &labels);
            // Two targets of one trunk may lead to the same server, one after the other here; a sample may be there once only.
            match samples.last_mut().filter(|(known, _)| *known == sample) {
                Some((_, takes_calls)) => *takes_calls |= destination.takes_calls,
                None => samples.push((sample, destination.takes_calls)),
            }
        }
        if !samples.is_empty() {
            self.describe(
                name,
                "gauge",
                "1 when it takes new calls; 0 when it is down, avoided, or marked by the operator.",
            );
        }
        for (sample, takes_calls) in samples {
            self.sample(&sample, u64::from(takes_calls));
        }
    }

    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", help.trim());
    }

    fn sample(&mut self, sample: &str, value: u64) {
        let _ = writeln!(self.0, "{sample} {value}");
    }
}

/// A sample's name with its labels, their values escaped.
fn labelled(name: &str, labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    format!("{name}{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(destinations: &[Destination]) -> String {
        let process = Process {
            started_at: 1_700_000_000,
            ready: true,
            draining: false,
            control: true,
            in_force: Configuration {
                origin: "user-data".into(),
                hash: "0123456789abcdef".into(),
                since: 1_700_000_009,
            },
            reloads: 3,
            reloads_refused: 2,
            secrets: Secrets { token_keys: vec![token_key(1, true)], looked_at: 1_700_000_010, ..Secrets::default() },
        };
        metrics(&process, &Numbers::default(), destinations)
    }

    fn token_key(id: u8, signs: bool) -> TokenKeyStatus {
        TokenKeyStatus { id, signs, since: 1_600_000_000, signs_since: None, signed_until: None }
    }

    fn destination(trunk: &str, address: &str, takes_calls: bool) -> Destination {
        Destination {
            trunk: trunk.into(),
            transport: "udp".into(),
            address: address.parse().unwrap(),
            health: "up".into(),
            avoided_ms: None,
            mark: "in-service".into(),
            takes_calls,
            target: "sip:x".into(),
            changed_s: None,
            reason: String::new(),
        }
    }

    #[test]
    fn every_metric_has_help_type_and_one_sample_under_a_unique_name() {
        let page = page(&[]);
        let mut names = std::collections::BTreeSet::new();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len() % 3, 0);
        for lines in lines.chunks(3) {
            let name = lines[0].strip_prefix("# HELP ").unwrap().split_once(' ').unwrap().0;
            let kind = lines[1].strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(lines[2].starts_with(name), "{}", lines[2]);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(names.insert(name), "{name} twice");
        }
        assert!(page.contains("\nsipedge_start_time_seconds 1700000000\n"));
        assert!(page.contains("\nsipedge_ready 1\n"));
        assert!(page.contains("\nsipedge_token_key_info{id=\"1\",signs=\"1\"} 1\n"));
        assert!(page.contains("\nsipedge_token_key_time_seconds{id=\"1\"} 1600000000\n"));
        assert!(page.contains("\nsipedge_reloads_total 3\n") && page.contains("\nsipedge_reloads_refused_total 2\n"));
        assert!(page.contains("\nsipedge_configuration_info{hash=\"0123456789abcdef\"} 1\n"));
    }

    #[test]
    fn each_destination_has_one_sample_and_its_labels_are_escaped() {
        let page = page(&[
            destination("a\"b\\c\nd", "192.0.2.1:5060", false),
            destination("e", "192.0.2.1:5060", true),
            destination("e", "192.0.2.1:5060", false),
            destination("e", "[2001:db8::1]:5060", true),
        ]);
        let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("sipedge_destination_up")).collect();
        assert_eq!(
            lines,
            [
                r#"sipedge_destination_up{trunk="a\"b\\c\nd",transport="udp",address="192.0.2.1:5060"} 0"#,
                r#"sipedge_destination_up{trunk="e",transport="udp",address="192.0.2.1:5060"} 1"#,
                r#"sipedge_destination_up{trunk="e",transport="udp",address="[2001:db8::1]:5060"} 1"#,
            ]
        );
        assert_eq!(page.matches("# TYPE sipedge_destination_up gauge").count(), 1);
    }
}
