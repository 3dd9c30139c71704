//! A project whose AWS is the server of `tests/moto`, with the real Terraform and the real AWS provider.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

#[path = "moto.rs"]
pub mod moto;
#[path = "project.rs"]
pub mod project;
#[path = "tools.rs"]
pub mod tools;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use moto::Moto;
use project::{Project, Ran, Running, skip};
use serde_json::{Value, json};

/// A deploy with a load balancer: the provider waits a minute for it whatever it is told, and this machine may be busy building.
pub const DEPLOY_DEADLINE: Duration = Duration::from_secs(900);

/// The example's edge with two zones, in a region of the tests. `IMAGE` is the image's id.
const SPEC: &str = "version: 1
name: twilio-bridge
aws: { region: us-east-1, image: IMAGE }
trunks:
  source:      { carrier: twilio }
  destination: { carrier: twilio, domain: bridge.sip.twilio.com }
routes:
  - { from: source, to: destination }
refresh: { checkpoint_delay: 10s, bake: 10s, warmup: 5s }
alarms: { email: [noc@example.com] }
";

/// The bucket for Terraform's state in `examples/production.yaml`.
pub const STATE_BUCKET: &str = "example-terraform-state";

/// A project and its AWS.
pub struct Cloud {
    pub project: Project,
    pub moto: Moto,
    plugins: PathBuf,
    said: RefCell<Vec<String>>,
}

impl Cloud {
    /// None, and `test` is skipped, where Terraform, its provider or the Python tools are missing.
    pub fn start(test: &str) -> Option<Self> {
        if project::program("terraform").is_none() {
            skip(test, "there is no Terraform");
            return None;
        }
        let Some(plugins) = tools::mirror().map(Path::to_owned) else {
            skip(test, "there is no provider hashicorp/aws; name its mirror in SIPEDGE_TERRAFORM_PLUGIN_DIR");
            return None;
        };
        let moto = Moto::start(test)?;
        let image = image(&moto, "sipedge-1");
        let project = Project::with_spec(&SPEC.replace("IMAGE", &image));
        Some(Self { project, moto, plugins, said: RefCell::default() })
    }

    /// `sipedge` with these arguments, in the project's folder and with this AWS.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        self.moto.prepare(&mut command);
        command.env("SIPEDGE_TERRAFORM_PLUGIN_DIR", &self.plugins);
        command
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.heard(self.start_command(arguments).finish())
    }

    /// Keeps what a command has said, as [`Cloud::run`] does.
    pub fn heard(&self, ran: Ran) -> Ran {
        self.said.borrow_mut().extend([ran.stdout.clone(), ran.stderr.clone()]);
        ran
    }

    /// Everything that commands have said so far on standard output and standard error.
    pub fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    pub fn start_command(&self, arguments: &[&str]) -> Running {
        Running::start_with_deadline(self.command(arguments), DEPLOY_DEADLINE)
    }

    #[track_caller]
    pub fn deploy(&self, topology: &str) -> Ran {
        self.run(&["deploy", topology, "--yes", "--no-verify", "--json"]).expect(0)
    }

    /// Status of one topology on AWS.
    #[track_caller]
    pub fn status(&self, topology: &str) -> Value {
        let all = self.run(&["status", "--target", "aws", "--json"]).json();
        let found = all["topologies"].as_array().cloned().unwrap_or_default();
        found
            .into_iter()
            .find(|status| status["topology"] == topology)
            .unwrap_or_else(|| panic!("{topology} is not in the status: {all}"))
    }

    /// The state folder of a topology on AWS.
    pub fn state(&self, topology: &str) -> PathBuf {
        self.project.state(&format!("aws-{topology}"))
    }

    /// Makes the bucket for Terraform's state, with versions kept, as its owner does before a deploy.
    pub fn make_state_bucket(&self) {
        self.moto.ask("s3", "create_bucket", json!({ "Bucket": STATE_BUCKET }));
        let versions = json!({ "Bucket": STATE_BUCKET, "VersioningConfiguration": { "Status": "Enabled" } });
        self.moto.ask("s3", "put_bucket_versioning", versions);
    }

    /// Changes the spec's text.
    pub fn change_spec(&self, from: &str, to: &str) {
        let spec = self.project.spec();
        assert!(spec.contains(from), "{from:?} is not in the spec");
        self.project.write_spec(&spec.replace(from, to));
    }
}

/// An image of this account.
pub fn image(moto: &Moto, name: &str) -> String {
    let registered = moto.ask(
        "ec2",
        "register_image",
        json!({ "Name": name, "Architecture": "x86_64", "RootDeviceName": "/dev/xvda", "VirtualizationType": "hvm" }),
    );
    registered["ImageId"].as_str().unwrap_or_else(|| panic!("no image: {registered}")).to_owned()
}

/// Values of `items` at `key`, where they are text.
pub fn texts(items: &Value, key: &str) -> Vec<String> {
    let list = items.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|item| item[key].as_str().map(str::to_owned)).collect()
}

/// What is no text after it is not user data of sipedge.
pub fn from_base64(encoded: &str) -> String {
    let bytes = BASE64_STANDARD.decode(encoded).unwrap_or_else(|error| panic!("{encoded}: {error}"));
    String::from_utf8(bytes).unwrap_or_else(|error| panic!("user data is text: {error}"))
}
