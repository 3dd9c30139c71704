use std::fmt::Write;

use crate::net::Numbers;

/// The metrics page, in Prometheus's text format. Counters end in `_total`, gauges do not.
pub fn metrics(numbers: &Numbers, started_at_secs: u64, ready: bool, draining: bool) -> String {
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
    page.add("sipedge_ready", "gauge", "1 after the self-call and until the drain.", u64::from(ready));
    page.add("sipedge_draining", "gauge", "1 from SIGTERM on.", u64::from(draining));
    let started = "When the proxy started, in seconds since the Unix epoch.";
    page.add("sipedge_start_time_seconds", "gauge", started, started_at_secs);
    let build = concat!("sipedge_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    page.add(build, "gauge", "Version of this build; always 1.", 1);
    page.0
}

struct Page(String);

impl Page {
    fn add(&mut self, sample: &str, kind: &str, help: &str, value: u64) {
        let name = sample.split('{').next().unwrap_or(sample);
        let help = help.trim();
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{sample} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_type_and_one_sample_under_a_unique_name() {
        let page = metrics(&Numbers::default(), 1_700_000_000, true, false);
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
    }
}
