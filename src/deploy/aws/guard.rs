//! What is refused before anything in an account is touched: another account, a call that cannot pass.

use sipedge_aws::Identity;

use super::super::error::Cause;
use super::super::journal::Journal;
use super::super::state::{Recorded, State};
use super::Options;
use crate::plan::Plan;

/// Whether something may stand: an apply has begun at least, and no destroy has ended since.
pub(super) fn may_stand(state: &State) -> bool {
    let recorded = [state.plan_file(), state.outputs_file()].iter().any(|file| file.exists());
    recorded || matches!(state.recorded(), Recorded::Here(count) if count > 0)
}

/// The credentials have to be those of the account in which this topology stands, where that is known.
pub(super) fn same_account(state: &State, journal: &Journal, identity: &Identity) -> Result<(), Cause> {
    match &journal.account {
        Some(deployed) if *deployed != identity.account && may_stand(state) => {
            Err(Cause::OtherAccount { deployed: deployed.clone(), here: identity.account.clone() })
        }
        _ => Ok(()),
    }
}

/// The verified call needs an answerer, and a way to it from where the operator is.
pub(super) fn can_verify(plan: &Plan, options: Options) -> Result<(), Cause> {
    if !options.verify {
        return Ok(());
    }
    if plan.proxy.answerer.is_none() {
        return Err(Cause::NoVerifiedCall(
            "the spec says `verify.answerer: false`, so that there is nobody to call from here. Leave it out, or pass --no-verify",
        ));
    }
    if plan.verify.operators.is_empty() {
        return Err(Cause::NoVerifiedCall(
            "the security group admits the carriers alone. Set `verify.operators: [YOUR.ADDRESS/32]` in the spec, or pass --no-verify",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::{Project, write_json};
    use crate::plan::{self, TargetKind, Topology};
    use crate::spec::Spec;

    fn planned(change: impl Fn(String) -> String) -> Plan {
        let text = change(crate::spec::init_text("edge"));
        let loaded = Spec::parse("sipedge.yaml", &text).expect("the example is sound");
        plan::plan(&loaded, Topology::SingleEc2, TargetKind::Aws).expect("it can be planned")
    }

    fn identity(account: &str) -> Identity {
        Identity { account: account.to_owned(), arn: String::new() }
    }

    #[test]
    fn another_account_is_refused_only_while_something_stands() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = Project::new(&folder.path().join("sipedge.yaml"), "edge").expect("a project");
        let state = project.state_on(TargetKind::Aws, Topology::SingleEc2);
        let journal = Journal { account: Some("111111111111".to_owned()), ..Journal::default() };
        let plan = planned(|text| text);
        same_account(&state, &journal, &identity("222222222222")).expect("nothing stands");

        write_json(&state.plan_file(), &plan, 0o600).expect("written");
        same_account(&state, &journal, &identity("111111111111")).expect("it is the same");
        same_account(&state, &Journal::default(), &identity("222222222222")).expect("it is not known");
        let text = same_account(&state, &journal, &identity("222222222222")).expect_err("another").to_string();
        assert!(text.contains("111111111111") && text.contains("222222222222"), "{text}");
    }

    #[test]
    fn a_call_that_cannot_pass_is_refused() {
        let (verify, not) = (Options { verify: true }, Options { verify: false });
        let mut plan = planned(|text| text);
        plan.verify.operators.clear();
        can_verify(&plan, not).expect("no call is placed");
        let text = can_verify(&plan, verify).expect_err("nobody gets in").to_string();
        assert!(text.contains("verify.operators: [YOUR.ADDRESS/32]") && text.contains("--no-verify"), "{text}");
        plan.verify.operators.push("192.0.2.1/32".parse().expect("a range"));
        can_verify(&plan, verify).expect("it can be placed");
        plan.proxy.answerer = None;
        let text = can_verify(&plan, verify).expect_err("nobody answers").to_string();
        assert!(text.contains("verify.answerer: false") && text.contains("--no-verify"), "{text}");
    }
}
