//! One spec for several environments: what is otherwise in each is put in, checked, and deployed under a name of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/project.rs"]
mod support;

use sipedge::spec::{Spec, init_text};
use support::Project;

const ENVIRONMENTS: &str = "scaling: { min: 3, max: 9 }
environments:
  testing:
    name: bridge-testing
    aws: { profile: test, instance_type: t3.micro }
    scaling: { max: 4 }
  staging:
    name: bridge-staging
    trunks:
      destination: { domain: staging.sip.twilio.com }
    routes:
      - { from: source, to: destination }
";

fn text(environments: &str) -> String {
    init_text("bridge") + environments
}

#[test]
fn what_an_environment_says_is_put_in_and_the_rest_stays() {
    let load = |environment| Spec::parse_environment("x", &text(ENVIRONMENTS), environment).unwrap();
    let (own, testing, staging) = (load(None), load(Some("testing")), load(Some("staging")));
    assert_eq!((own.spec.name.as_str(), own.spec.scaling.min, own.spec.scaling.max), ("bridge", 3, 9));
    assert_eq!(
        (testing.spec.name.as_str(), testing.spec.scaling.min, testing.spec.scaling.max),
        ("bridge-testing", 3, 4)
    );
    assert_eq!(testing.spec.aws.region, own.spec.aws.region);
    assert_eq!((testing.spec.aws.profile.as_str(), testing.spec.aws.instance_type.as_str()), ("test", "t3.micro"));
    let domain = |spec: &Spec| spec.trunks["destination"].domain.clone().unwrap();
    assert_eq!(domain(&staging.spec), "staging.sip.twilio.com");
    assert_eq!(staging.spec.trunks["destination"].carrier.as_deref(), Some("twilio"));
    // The domain of the examples is warned of where it is used, and there alone.
    let warned = |loaded: &sipedge::spec::Loaded| loaded.warnings.iter().any(|w| w.code == "spec::placeholder");
    assert!(warned(&own) && warned(&testing) && !warned(&staging));
    assert!(own.defaults.iter().any(|default| default.setting == "aws.instance_type"));
    assert!(!testing.defaults.iter().any(|default| default.setting == "aws.instance_type"));
}

#[test]
fn every_environment_is_checked_whichever_is_asked_for() {
    let wrong = text(&ENVIRONMENTS.replace("max: 4", "max: 2"));
    for environment in [None, Some("testing"), Some("staging")] {
        let errors = Spec::parse_environment("x", &wrong, environment).unwrap_err();
        let [error] = errors.errors().collect::<Vec<_>>()[..] else { panic!("{errors}") };
        assert_eq!(error.code, "spec::scaling");
        let line = wrong.lines().nth(error.line - 1).unwrap();
        assert!(line.contains("max"), "points to {line}");
    }
}

#[test]
fn an_unknown_environment_is_told_with_those_that_there_are() {
    let errors = Spec::parse_environment("x", &text(ENVIRONMENTS), Some("testin")).unwrap_err();
    let said = errors.to_string();
    assert!(said.contains("no environment `testin`") && said.contains("did you mean `testing`?"), "{said}");
    assert!(Spec::parse_environment("x", &text(""), Some("testing")).is_err());
}

#[test]
fn commands_are_about_the_environment_that_is_named() {
    let project = Project::with_spec(&text(ENVIRONMENTS));
    let check = project.run(&["check", "--environment", "testing", "--json"]).expect(0).json();
    assert_eq!(check["edge"], "bridge-testing");
    let plans = project.run(&["plan", "--environment", "staging", "--json"]).expect(0).json();
    assert_eq!(plans["plans"][0]["plan"]["name"], "bridge-staging");
    let plans = project.run(&["plan", "--json"]).expect(0).json();
    assert_eq!(plans["plans"][0]["plan"]["name"], "bridge");
    // What is deployed is told apart by the environment as well.
    for command in ["status", "destroy"] {
        let run = project.run(&[command, "--target", "lab", "--environment", "testing"]);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains("bridge-testing"), "{command}: {said}");
    }
}
