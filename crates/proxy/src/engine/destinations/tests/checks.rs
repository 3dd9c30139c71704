//! What a configuration may say of targets, failover and probes.

use super::*;

fn reasons(change: impl Fn(&mut config::Trunk)) -> Vec<String> {
    let mut trunk = trunk(Select::Weight, &[("sip:198.51.100.1", 1, 1)]);
    change(&mut trunk);
    match Setup::new(configuration(trunk), &place(), &bench::keys(&[1])) {
        Ok(_) => Vec::new(),
        Err(error) => error.reasons,
    }
}

#[test]
fn values_at_their_bounds_are_right() {
    let good: [fn(&mut config::Trunk); 5] = [
        |_| {},
        |trunk| trunk.failover = Failover { codes: vec![400, 404, 480, 500, 503, 599], attempts: 16 },
        |trunk| trunk.failover = Failover { codes: vec![], attempts: 1 },
        |trunk| trunk.probe = Some(Probe::default()),
        |trunk| {
            trunk.probe = Some(Probe {
                interval_ms: 1_000,
                jitter_percent: 50,
                timeout_ms: 500,
                down_after: 1,
                up_after: 255,
                codes: vec![200, 699],
            });
        },
    ];
    for change in good {
        assert_eq!(reasons(change), Vec::<String>::new());
    }
}

#[test]
fn each_wrong_value_has_its_reason() {
    let probe = |change: fn(&mut Probe)| {
        reasons(|trunk| {
            let mut probe = Probe::default();
            change(&mut probe);
            trunk.probe = Some(probe);
        })
    };
    let failover =
        |codes: &[u16], attempts: u8| reasons(|trunk| trunk.failover = Failover { codes: codes.to_vec(), attempts });
    let cases = [
        (
            reasons(|trunk| trunk.targets.push(trunk.targets[0].clone())),
            "targets: `sip:198.51.100.1` is there twice; one with twice the weight gets as much",
        ),
        (failover(&[503, 486], 3), "failover.codes: 486 is the callee's word: another destination cannot better it"),
        (failover(&[407], 3), "failover.codes: 407 is the callee's word: another destination cannot better it"),
        (failover(&[603], 3), "failover.codes: 603 is not from 400 to 599"),
        (failover(&[302], 3), "failover.codes: 302 is not from 400 to 599"),
        (failover(&[503], 0), "failover.attempts: 0 is not from 1 to 16"),
        (failover(&[503], 17), "failover.attempts: 17 is not from 1 to 16"),
        (probe(|probe| probe.interval_ms = 3_600_001), "probe.interval_ms: 3600001 is not from 1000 to 3600000"),
        (probe(|probe| probe.jitter_percent = 51), "probe.jitter_percent: 51 is not from 0 to 50"),
        (
            probe(|probe| probe.timeout_ms = 27_001),
            "probe.timeout_ms: 27001 is not from 100 to 27000, the interval less its jitter",
        ),
        (
            probe(|probe| probe.timeout_ms = 99),
            "probe.timeout_ms: 99 is not from 100 to 27000, the interval less its jitter",
        ),
        (probe(|probe| probe.down_after = 0), "probe.down_after: must be at least 1"),
        (probe(|probe| probe.up_after = 0), "probe.up_after: must be at least 1"),
        (probe(|probe| probe.codes = vec![100]), "probe.codes: 100 is not from 200 to 699"),
        (probe(|probe| probe.codes = vec![700]), "probe.codes: 700 is not from 200 to 699"),
    ];
    for (reasons, expected) in cases {
        assert_eq!(reasons, [format!("trunks.destination.{expected}")]);
    }
}
