//! A plan for people.

use std::fmt::Display;
use std::net::IpAddr;

use sipedge_proxy::config::{SecretRef, Select, Trunk};

use super::cost::dollars;
use super::{Carrier, Effect, Plan, Risk, Side, State, TargetKind, Topology, difference, lab_differences};

/// Columns inside the picture's frame.
const WIDTH: usize = 92;

/// Targets of a pool in the picture; the table below it has all.
const TARGETS_DRAWN: usize = 4;

/// Column of the picture's right half.
const HALF: usize = 48;

/// The whole text of `sipedge plan`.
pub fn render(plan: &Plan, deployed: Option<&Plan>) -> String {
    let mut text = format!("Plan of {}: {} on {}\n\n{}", plan.name, plan.topology, place(plan), picture(plan));
    section(&mut text, "Carriers", &carriers(plan));
    section(&mut text, "Pools", &pools(plan));
    section(&mut text, "Certificates", &certificates(plan));
    section(&mut text, "To be admitted by the carriers", &admitted(plan));
    section(&mut text, "Smoke calls", &calls(plan));
    section(&mut text, "Refresh", &refresh(plan));
    section(&mut text, "Cost of a month", &costs(plan));
    section(&mut text, "Defaults", &defaults_table(plan));
    section(&mut text, "The lab differs from AWS", &bullets(&lab_differences(plan)));
    section(&mut text, "Warnings", &bullets(&plan.warnings));
    let files: Vec<String> =
        plan.artefacts.iter().map(|(name, content)| format!("{name} ({} bytes)", content.len())).collect();
    section(&mut text, "Files", &bullets(&files));
    let change = difference(deployed, plan);
    section(&mut text, "Risk", &risk(&change.risks));
    section(&mut text, if change.state == State::Changed { "Changes" } else { "Change" }, &change.to_string());
    text
}

/// The settings that the spec left out, one line each: setting, value, reason.
pub fn defaults_table(plan: &Plan) -> String {
    let rows: Vec<[String; 3]> = plan
        .defaults
        .iter()
        .map(|default| [default.setting.clone(), default.value.clone(), default.reason.clone()])
        .collect();
    table(&rows)
}

/// The topology, drawn: carriers above, the edge below.
pub fn picture(plan: &Plan) -> String {
    let (ingress, egress) = (addresses(&plan.network.ingress_addresses), addresses(&plan.network.egress_addresses));
    let listen = &plan.proxy.listen;
    let single = plan.topology == Topology::SingleEc2;
    let mut lines: Vec<String> = Vec::new();
    let (from, to) = (peers(plan, true), peers(plan, false));
    for row in 0..from.len().max(to.len()) {
        let cell = |side: &[String]| side.get(row).cloned().unwrap_or_default();
        lines.push(halves(&format!("   {}", cell(&from)), &format!("   {}", cell(&to))));
    }
    let out = if single { &ingress } else { &egress };
    lines.push(halves(&format!("     │ calls, {}", doors(plan)), &format!("     ▲ calls from {out}")));
    lines.push(halves("     ▼", "     │"));
    lines.push(format!("┌{}┐", "─".repeat(WIDTH)));
    let region =
        plan.network.zones.first().map_or("", |zone| zone.name.trim_end_matches(|c: char| c.is_ascii_lowercase()));
    let existing = plan.aws.as_ref().and_then(|aws| aws.vpc.as_ref());
    let vpc = existing.map_or_else(|| plan.network.vpc.to_string(), |vpc| format!("{} (there already)", vpc.id));
    lines.push(framed(&format!(" VPC {vpc}, {region}")));
    let zones: Vec<String> = plan
        .network
        .zones
        .iter()
        .map(|zone| {
            let own = if single { zone.public_subnet } else { zone.private_subnet };
            let ids = existing.map(|vpc| if single { &vpc.public_subnet_ids } else { &vpc.private_subnet_ids });
            let subnet = ids.and_then(|ids| ids.get(&zone.name).cloned()).unwrap_or_else(|| own.to_string());
            format!("{} {subnet}", zone.name)
        })
        .collect();
    if single {
        lines.push(framed(&halves("    │", "    │")));
        lines.push(framed(&format!("  Elastic IP {ingress}, in and out")));
        lines.push(framed(&halves("    ▼", "    │")));
        lines.push(framed(&format!(
            "  1 instance, {}, UDP both ways, health on port {}",
            doors(plan),
            plan.proxy.admin.port
        )));
    } else {
        let check = &plan.network.health_check;
        lines.push(framed(&halves("    │", "    │")));
        lines.push(framed(&halves(&format!("  NLB {ingress}, {}", doors(plan)), &format!("  NAT gateway {egress}"))));
        lines.push(framed(&halves(&format!("    │ by {}", spreading(plan)), "    ▲")));
        lines.push(framed(&halves(
            &format!("    ▼ health :{}{} every {}", check.port, check.path, millis(check.interval_ms)),
            &format!("    │ from port {}", listen.egress_port),
        )));
        lines.push(framed(&format!(
            "  {} to {} instances, requests in on {}, out on {}",
            plan.scaling.min, plan.scaling.max, listen.ingress_port, listen.egress_port
        )));
    }
    let width = zones.iter().map(|zone| zone.chars().count()).max().unwrap_or(0);
    // As many zones on a line as fit, each with its separator.
    for row in zones.chunks((WIDTH / (width + 4)).max(1)) {
        let cells: Vec<String> = row.iter().map(|zone| format!("{zone:<width$}")).collect();
        lines.push(framed(&format!("    {}", cells.join(" │ "))));
    }
    lines.push(format!("└{}┘", "─".repeat(WIDTH)));
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn place(plan: &Plan) -> &'static str {
    match plan.target {
        TargetKind::Aws => "AWS",
        TargetKind::Lab => "this machine (lab)",
    }
}

fn spreading(plan: &Plan) -> &'static str {
    match plan.network.spreading {
        super::Spreading::SourceIp => "source address",
        super::Spreading::FiveTuple => "five-tuple",
    }
}

fn millis(millis: u32) -> crate::spec::Duration {
    crate::spec::Duration::from_millis(millis)
}

/// Two lines per trunk that calls come from, or go to.
fn peers(plan: &Plan, sources: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for trunk in &plan.proxy.trunks {
        let named = plan
            .proxy
            .routes
            .iter()
            .any(|route| if sources { route.from == trunk.name } else { route.to == trunk.name });
        if !named {
            continue;
        }
        let carrier = plan.carriers.iter().find(|carrier| carrier.trunks.contains(&trunk.name));
        let title = carrier.map(|carrier| carrier.name.as_str()).filter(|name| *name != trunk.name);
        lines.push(title.map_or_else(|| trunk.name.clone(), |title| format!("{} ({title})", trunk.name)));
        if sources {
            lines.push(some_of(&trunk.from));
        } else {
            lines.extend(targets(trunk));
        }
    }
    lines
}

/// The targets of a trunk, those of the best priority first; of a pool each with its priority.
fn targets(trunk: &Trunk) -> Vec<String> {
    if let [only] = trunk.targets.as_slice() {
        return vec![only.uri.clone()];
    }
    let mut sorted: Vec<_> = trunk.targets.iter().collect();
    sorted.sort_by_key(|target| target.priority);
    let mut lines: Vec<String> = sorted
        .iter()
        .take(TARGETS_DRAWN)
        .map(|target| {
            let weight = if target.weight == 1 { String::new() } else { format!(", weight {}", target.weight) };
            format!("{}. {}{weight}", target.priority, target.uri)
        })
        .collect();
    if let Some(more) = sorted.len().checked_sub(TARGETS_DRAWN).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// How calls may come in.
fn doors(plan: &Plan) -> String {
    let listen = &plan.proxy.listen;
    let plain = if listen.tcp { "UDP+TCP" } else { "UDP" };
    let tls = listen.tls.as_ref().map(|tls| format!(", TLS {}", tls.port)).unwrap_or_default();
    format!("{plain} {}{tls}", listen.ingress_port)
}

fn some_of<T: Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [one, two] => format!("{one}, {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
    }
}

fn addresses(known: &[IpAddr]) -> String {
    match known {
        [] => "(known after apply)".into(),
        known => some_of(known),
    }
}

fn carriers(plan: &Plan) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for carrier in &plan.carriers {
        for (index, range) in carrier.ranges.iter().enumerate() {
            let name = if index == 0 { heading(carrier) } else { String::new() };
            let stands_in = if range.real == range.used { String::new() } else { format!("in the lab {}", range.used) };
            rows.push([name, range.real.to_string(), stands_in]);
        }
        for domain in &carrier.domains {
            let answer = if domain.addresses.is_empty() {
                String::new()
            } else {
                format!("in the lab {}", some_of(&domain.addresses))
            };
            rows.push([String::new(), domain.name.clone(), answer]);
        }
    }
    table(&rows)
}

/// Trunks with more than one target: how one is chosen, and when another one is.
fn pools(plan: &Plan) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for trunk in plan.proxy.trunks.iter().filter(|trunk| trunk.targets.len() > 1) {
        let select = match trunk.select {
            Select::Weight => "one by weight",
            Select::CallId => "one by Call-ID",
            Select::RoundRobin => "one after the other",
            Select::All => "all at once",
        };
        let codes: Vec<String> = trunk.failover.codes.iter().map(u16::to_string).collect();
        let mut failover = format!(
            "next on silence{}",
            if codes.is_empty() { String::new() } else { format!(", {}", codes.join(", ")) }
        );
        failover.push_str(&format!("; at most {} tries", trunk.failover.attempts));
        rows.push([trunk.name.clone(), select.to_owned(), failover]);
        let mut sorted: Vec<_> = trunk.targets.iter().collect();
        sorted.sort_by_key(|target| target.priority);
        for target in sorted {
            let place = format!("priority {}, weight {}", target.priority, target.weight);
            rows.push([String::new(), place, target.uri.clone()]);
        }
        let probe = trunk.probe.as_ref().map_or_else(
            || "none".to_owned(),
            |probe| {
                let (interval, timeout) = (millis(probe.interval_ms), millis(probe.timeout_ms));
                format!(
                    "every {interval}, answer within {timeout}, down after {}, up after {}",
                    probe.down_after, probe.up_after
                )
            },
        );
        rows.push([String::new(), "probes".to_owned(), probe]);
    }
    table(&rows)
}

/// What the peers have to let in, a line each.
fn admitted(plan: &Plan) -> String {
    let known = |addresses: &[IpAddr]| match addresses {
        [] => "known after apply".to_owned(),
        known => known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let rows: Vec<[String; 3]> = plan
        .whitelist
        .iter()
        .map(|entry| {
            let (side, addresses) = match entry.side {
                Side::Ingress => ("ingress", &plan.network.ingress_addresses),
                Side::Egress => ("egress", &plan.network.egress_addresses),
                Side::Both => ("Elastic IP", &plan.network.ingress_addresses),
            };
            let peer = if entry.peer == entry.trunk {
                entry.trunk.clone()
            } else {
                format!("{} ({})", entry.trunk, entry.peer)
            };
            [peer, format!("{side} ({}), {}", known(addresses), entry.ports), entry.reason.clone()]
        })
        .collect();
    let mut places: Vec<String> = Vec::new();
    for entry in &plan.whitelist {
        let Some(place) = &entry.place else { continue };
        let place = format!("{}: {place}\n", entry.peer);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    table(&rows) + &places.concat()
}

fn refresh(plan: &Plan) -> String {
    let refresh = &plan.refresh;
    let list: Vec<String> = refresh.checkpoints.iter().map(|percent| format!("{percent} %")).collect();
    let span = |seconds: u32| crate::spec::Duration::from_secs(seconds);
    format!(
        "{} to {} % of the instances are in service; waits {} at {}, smoke call at the first, then watches alarms for {}; rolled back after {}\n",
        refresh.min_healthy_percent,
        refresh.max_healthy_percent,
        span(refresh.checkpoint_delay_s),
        list.join(", "),
        span(refresh.bake_s),
        span(refresh.timeout_s)
    )
}

fn costs(plan: &Plan) -> String {
    let Some(cost) = &plan.cost else { return String::new() };
    let range = |least, most| match least == most {
        true => dollars(least),
        false => format!("{} to {}", dollars(least), dollars(most)),
    };
    let mut rows: Vec<[String; 3]> = cost
        .items
        .iter()
        .map(|item| [item.name.clone(), item.figures.clone(), range(item.least_cents, item.most_cents)])
        .collect();
    rows.push(["in all".to_owned(), "without traffic and tax".to_owned(), range(cost.least_cents, cost.most_cents)]);
    let mut text = table(&rows);
    text.push_str("and for traffic:\n");
    text.push_str(&bullets(&cost.traffic));
    for note in &cost.estimated {
        text.push_str(&format!("An estimate: {note}.\n"));
    }
    text.push_str(&format!("{}.\n", cost.compared));
    text.push_str(&format!("List prices of {} as of {}; {}\n", cost.prices_of, cost.as_of, cost.sources.join(", ")));
    text
}

/// What a change means for calls, a line each.
fn risk(risks: &[Risk]) -> String {
    let rows: Vec<[String; 3]> = risks
        .iter()
        .map(|risk| {
            let effect = match risk.effect {
                Effect::None => "no call notices",
                Effect::Refresh => "calls go on",
                Effect::Act => "somebody has to act",
                Effect::Disturbs => "some calls fail",
                Effect::CallsEnd => "ALL CALLS END",
                Effect::Refused => "NOT IN ONE DEPLOY",
            };
            [effect.to_owned(), risk.change.clone(), risk.meaning.clone()]
        })
        .collect();
    table(&rows)
}

fn certificates(plan: &Plan) -> String {
    let rows: Vec<[String; 3]> = plan
        .certificates
        .iter()
        .map(|certificate| {
            let place = match &certificate.place {
                SecretRef::File(name) => format!("to the lab's secrets as {name}"),
                SecretRef::Ssm(name) => format!("to SSM parameter {name}"),
            };
            let what = if certificate.has_key { "certificate and key" } else { "roots" };
            [certificate.name.clone(), format!("{what} of {}", certificate.file), place]
        })
        .collect();
    table(&rows)
}

fn heading(carrier: &Carrier) -> String {
    let others: Vec<&str> = carrier.trunks.iter().map(String::as_str).filter(|trunk| *trunk != carrier.name).collect();
    if others.is_empty() { carrier.name.clone() } else { format!("{} ({})", carrier.name, others.join(", ")) }
}

fn calls(plan: &Plan) -> String {
    let rows: Vec<[String; 3]> = plan
        .verify
        .calls
        .iter()
        .map(|call| {
            let uri = format!("sip:{}@{}", call.number, some_of(&call.request_uri_hosts));
            [format!("{} → {}", call.from, call.to), uri, format!("set up within {}", millis(plan.verify.max_setup_ms))]
        })
        .collect();
    table(&rows)
}

fn section(text: &mut String, title: &str, body: &str) {
    if body.is_empty() {
        return;
    }
    text.push_str(&format!("\n{title}\n"));
    for line in body.lines() {
        let line = format!("  {line}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn bullets(items: &[String]) -> String {
    items.iter().map(|item| format!("- {item}\n")).collect()
}

fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[a, b, c]| format!("{a:<first$}  {b:<second$}  {c}").trim_end().to_owned() + "\n").collect()
}

fn halves(left: &str, right: &str) -> String {
    format!("{left:<HALF$}{right}")
}

fn framed(content: &str) -> String {
    format!("│{content:<WIDTH$}│")
}
