"""Amazon Q Developer in chat applications (AWS Chatbot), which moto lacks: channels of Slack, as far as Terraform asks for them."""

import json

from moto.core import DEFAULT_ACCOUNT_ID

# What AWS learns from Slack, and what it takes where nothing is said.
TOLD_BY_SLACK = {"SlackTeamName": "example", "SlackChannelName": "noc", "State": "ENABLED"}
DEFAULTS = {"LoggingLevel": "NONE", "SnsTopicArns": [], "GuardrailPolicyArns": [], "UserAuthorizationRequired": False, "Tags": []}


class Channels:
    """Configurations of channels by ARN."""

    def __init__(self):
        self.channels = {}

    def answer(self, path, body):
        """Status, headers and body for a request in its protocol (REST with JSON)."""
        operations = {
            "/create-slack-channel-configuration": self._create,
            "/describe-slack-channel-configurations": self._describe,
            "/delete-slack-channel-configuration": self._delete,
            "/list-tags-for-resource": self._tags,
        }
        if path not in operations:
            return refusal(400, "InvalidRequestException", f"this AWS has no {path}")
        return operations[path](json.loads(body or b"{}"))

    def _create(self, asked):
        arn = f"arn:aws:chatbot::{DEFAULT_ACCOUNT_ID}:chat-configuration/slack-channel/{asked['ConfigurationName']}"
        if arn in self.channels:
            return refusal(409, "ConflictException", f"{arn} exists")
        self.channels[arn] = {**TOLD_BY_SLACK, **DEFAULTS, **asked, "ChatConfigurationArn": arn}
        return told(201, {"ChannelConfiguration": self.channels[arn]})

    def _describe(self, asked):
        wanted = asked.get("ChatConfigurationArn")
        found = [channel for arn, channel in self.channels.items() if wanted in (None, arn)]
        return told(200, {"SlackChannelConfigurations": found})

    def _delete(self, asked):
        if self.channels.pop(asked["ChatConfigurationArn"], None) is None:
            return refusal(404, "ResourceNotFoundException", f"{asked['ChatConfigurationArn']} does not exist")
        return 204, [], b""

    def _tags(self, asked):
        if asked["ResourceARN"] not in self.channels:
            return refusal(404, "ResourceNotFoundException", f"{asked['ResourceARN']} does not exist")
        return told(200, {"Tags": self.channels[asked["ResourceARN"]]["Tags"]})


def told(status, answer):
    return status, [("Content-Type", "application/json")], json.dumps(answer).encode()


def refusal(status, code, message):
    status, headers, body = told(status, {"message": message})
    return status, [*headers, ("x-amzn-ErrorType", code)], body


CHANNELS = Channels()
