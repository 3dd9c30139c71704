//! Commands on instances: the document `AWS-RunShellScript` by Run Command of AWS Systems Manager, and what each instance answers.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::SdkError;
use aws_sdk_ssm::operation::get_command_invocation::{GetCommandInvocationError, GetCommandInvocationOutput};
use aws_sdk_ssm::types::{CommandInvocationStatus, InstanceInformationStringFilter, PingStatus};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Aws;
use crate::error::AwsError;

/// What one instance made of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandAnswer {
    /// It ended with exit code 0. Standard output, of which AWS keeps the first 24,000 characters.
    Output(String),
    /// It ended otherwise, or could not be started.
    Failed {
        /// AWS's word for it, such as `Failed`, `Execution Timed Out`, `Undeliverable`.
        how: String,
        /// Exit code; none if it did not run.
        code: Option<i32>,
        /// Standard error.
        error: String,
    },
    /// Systems Manager does not know the instance: its agent has not reported yet, may not report, or there is none.
    NotManaged,
    /// Its agent has reported once, and does not any more.
    Silent,
    /// No answer in the time that there was.
    Late {
        /// Whether its agent has taken the command.
        taken: bool,
    },
}

/// Instances that one SendCommand takes (API reference of Systems Manager, SendCommand, `InstanceIds`, 2026-11).
const INSTANCES_PER_COMMAND: usize = 50;

/// Seconds in which an agent may take a command before it is void: the least that AWS accepts. Nobody waits for it so long.
const VOID_AFTER_S: i32 = 30;

/// Seconds that the command may run on an instance.
const RUNS_AT_MOST_S: u32 = 10;

/// Between two looks at an instance's answer. A command takes an agent about a second.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// AWS's document whose command is a shell's, run as root.
const DOCUMENT: &str = "AWS-RunShellScript";

const SEND: &str = "ssm:SendCommand";
const LOOK: &str = "ssm:GetCommandInvocation";
const WHO: &str = "ssm:DescribeInstanceInformation";

/// The code of AWS's refusal when one of the instances is not managed, or not in a state to be.
const INVALID_INSTANCE: &str = "InvalidInstanceId";

/// What each instance answered, or why that cannot be asked.
pub type CommandAnswers = BTreeMap<String, Result<CommandAnswer, AwsError>>;

impl Aws {
    /// Runs a shell's command on instances as root, and returns what each of them answered `within` the time. AWS keeps command and output
    /// for 30 days, so that neither may contain a secret. `comment`: what the account's command history says, 100 characters at most.
    ///
    /// # Errors
    /// [`AwsError`] when nothing could be sent to anybody.
    pub fn run_on(
        &self,
        instances: &[String],
        command: &str,
        comment: &str,
        within: Duration,
    ) -> Result<CommandAnswers, AwsError> {
        let deadline = Instant::now() + within;
        let mut answers = CommandAnswers::new();
        let mut sent = Vec::new();
        for some in instances.chunks(INSTANCES_PER_COMMAND) {
            match self.send(some, command, comment, deadline) {
                Ok(id) => sent.extend(some.iter().map(|instance| (id.clone(), instance.clone()))),
                // One that is not managed has the whole command refused.
                Err(error) if error.code() == Some(INVALID_INSTANCE) => {
                    let managed = self.managed(some, deadline)?;
                    let online: Vec<String> =
                        some.iter().filter(|instance| managed.get(*instance) == Some(&true)).cloned().collect();
                    for instance in some.iter().filter(|instance| !online.contains(instance)) {
                        let known = managed.contains_key(instance);
                        let answer = if known { CommandAnswer::Silent } else { CommandAnswer::NotManaged };
                        answers.insert(instance.clone(), Ok(answer));
                    }
                    if !online.is_empty() {
                        let id = self.send(&online, command, comment, deadline)?;
                        sent.extend(online.into_iter().map(|instance| (id.clone(), instance)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let followed = self.wait(follow_all(self.ssm.clone(), sent, deadline));
        answers.extend(
            followed
                .into_iter()
                .map(|(instance, answer)| (instance, answer.map_err(|error| self.classified(LOOK, &error)))),
        );
        Ok(answers)
    }

    /// Sends the command; returns its id.
    fn send(&self, instances: &[String], command: &str, comment: &str, deadline: Instant) -> Result<String, AwsError> {
        let request = self
            .ssm
            .send_command()
            .set_instance_ids(Some(instances.to_vec()))
            .document_name(DOCUMENT)
            .parameters("commands", vec![command.to_owned()])
            .parameters("executionTimeout", vec![RUNS_AT_MOST_S.to_string()])
            .timeout_seconds(VOID_AFTER_S)
            // By default the first failure keeps the command from the instances that have not got it yet.
            .max_errors("100%")
            .max_concurrency("100%")
            .comment(comment);
        let told = self.call_until(SEND, deadline, request.send())?.command;
        let id = told.and_then(|command| command.command_id);
        id.ok_or_else(|| self.unexpected(SEND, "a command without an id"))
    }

    /// The instances that Systems Manager knows, and whether their agents report.
    fn managed(&self, instances: &[String], deadline: Instant) -> Result<BTreeMap<String, bool>, AwsError> {
        let these = InstanceInformationStringFilter::builder()
            .key("InstanceIds")
            .set_values(Some(instances.to_vec()))
            .build()
            .map_err(|error| self.unexpected(WHO, error.to_string()))?;
        let pages = self.ssm.describe_instance_information().filters(these).into_paginator().send();
        let pages = self.call_until(WHO, deadline, pages.collect::<Result<Vec<_>, _>>())?;
        let told = pages.into_iter().flat_map(|page| page.instance_information_list.unwrap_or_default());
        Ok(told.filter_map(|known| Some((known.instance_id?, known.ping_status == Some(PingStatus::Online)))).collect())
    }
}

type Followed = Result<CommandAnswer, SdkError<GetCommandInvocationError>>;

/// Waits for the answers to commands, all at once.
async fn follow_all(client: Client, sent: Vec<(String, String)>, deadline: Instant) -> Vec<(String, Followed)> {
    let mut looks = JoinSet::new();
    for (command, instance) in sent {
        let client = client.clone();
        looks.spawn(async move {
            let followed = follow(&client, &command, &instance, deadline).await;
            (instance, followed)
        });
    }
    looks.join_all().await
}

/// Waits for one instance's answer.
async fn follow(client: &Client, command: &str, instance: &str, deadline: Instant) -> Followed {
    let mut taken = false;
    loop {
        let look = client.get_command_invocation().command_id(command).instance_id(instance).send();
        match timeout_at(deadline, look).await {
            Err(_) => break,
            Ok(Ok(told)) => match read(&told) {
                Some(answer) => return Ok(answer),
                None => taken = told.status == Some(CommandInvocationStatus::InProgress),
            },
            // For a moment after the command was sent.
            Ok(Err(error)) if error.as_service_error().is_some_and(|it| it.is_invocation_does_not_exist()) => {}
            Ok(Err(error)) => return Err(error),
        }
        if Instant::now() + LOOK_AGAIN >= deadline {
            break;
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(CommandAnswer::Late { taken })
}

/// The answer, once there is one.
fn read(told: &GetCommandInvocationOutput) -> Option<CommandAnswer> {
    let status = told.status.as_ref()?;
    match status {
        CommandInvocationStatus::Success => {
            Some(CommandAnswer::Output(told.standard_output_content.clone().unwrap_or_default()))
        }
        CommandInvocationStatus::Failed | CommandInvocationStatus::TimedOut | CommandInvocationStatus::Cancelled => {
            Some(CommandAnswer::Failed {
                how: told.status_details.clone().unwrap_or_else(|| status.as_str().to_owned()),
                code: Some(told.response_code).filter(|code| *code >= 0),
                error: told.standard_error_content.clone().unwrap_or_default(),
            })
        }
        // Pending, InProgress, Delayed, Cancelling, and what there will be some day.
        _ => None,
    }
}
