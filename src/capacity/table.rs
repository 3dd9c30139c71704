//! Capacity as text.

use std::fmt::Write;

use super::{Answer, BUSY_PERCENT, Bound, Carries, Choice, Figures, SLOWER, ZONES};
use crate::plan::{Topology, dollars};

/// The edges that carry what was asked for, and what they were worked out from.
#[must_use]
pub fn answer_text(answer: &Answer) -> String {
    let mut text = format!(
        "{} calls/s of {} s: {} calls in progress at a time, {} packets/s\n\n",
        rounded(answer.cps),
        answer.duration_s,
        rounded(answer.calls),
        rounded(answer.packets_per_s),
    );
    for topology in [Topology::SingleEc2, Topology::LoadBalanced] {
        let choice = answer.choices.iter().find(|choice| choice.topology == topology);
        let line = choice.map_or_else(|| "no edge of this kind is suggested for that many".to_owned(), choice_text);
        let _ = writeln!(text, "{:<14} {line}", topology.to_string());
    }
    text.push('\n');
    text.push_str(&basis(&answer.figures));
    text
}

fn choice_text(choice: &Choice) -> String {
    let carried = match choice.cps_without_a_zone {
        Some(left) => {
            format!("carries {} calls/s, and {} without one of {ZONES} zones", rounded(choice.cps), rounded(left))
        }
        None => format!("carries {} calls/s", rounded(choice.cps)),
    };
    format!(
        "{} × {}, {} a month for instances: {carried}",
        choice.instances,
        choice.instance_type,
        dollars(choice.month_cents)
    )
}

/// What each instance type carries, and what that was worked out from.
#[must_use]
pub fn types_text(types: &[Carries], figures: &Figures) -> String {
    let mut text = format!(
        "{:<11} {:>4} {:>6} {:>8} {:>14} {:>14}  {:<10} {:>9}\n",
        "type", "vCPU", "used", "calls/s", "calls of 60 s", "calls of 180 s", "bound by", "a month"
    );
    for carries in types {
        let _ = writeln!(
            text,
            "{:<11} {:>4} {:>4} % {:>8} {:>14} {:>14}  {:<10} {:>9}",
            carries.instance_type,
            carries.vcpu,
            carries.used_percent,
            rounded(carries.cps),
            rounded(carries.cps * 60.0),
            rounded(carries.cps * 180.0),
            match carries.bound {
                Bound::Processor => "processor",
                Bound::Memory => "memory",
            },
            carries.month_cents.map_or_else(|| "?".to_owned(), dollars),
        );
    }
    text.push('\n');
    text.push_str(&basis(figures));
    text
}

/// What the figures are, and what was not measured.
fn basis(figures: &Figures) -> String {
    let cpu = figures.cpu_us_per_call;
    format!(
        "Measured {} at commit {} on {}:\n\
         {:.0} µs of a core per call, kernel included ({:.0} to {:.0}), at {} calls/s; {} bytes per call that rings, none per call that is\n\
         answered; {} MiB of memory. Taken from it: the slowest run; a vCPU of EC2, where nobody has measured, as {SLOWER} times as slow; the\n\
         baseline of types with CPU credits, {BUSY_PERCENT} % of the others. Not in it: what EC2 lets an instance send in packets per second.\n",
        figures.as_of,
        figures.commit,
        figures.machine,
        cpu.median,
        cpu.min,
        cpu.max,
        figures.rate_cps,
        figures.ringing_call_bytes,
        figures.memory_mib,
    )
}

/// To three digits at the most below a thousand, and with commas above.
fn rounded(figure: f64) -> String {
    if figure < 10.0 && figure.fract() != 0.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_at_a_glance() {
        let texts = [0.5, 7.0, 25.4, 999.0, 3_600.0, 1_234_567.8].map(rounded);
        assert_eq!(texts, ["0.5", "7", "25", "999", "3,600", "1,234,568"]);
    }
}
