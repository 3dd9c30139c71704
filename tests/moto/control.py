"""What the tests do to this AWS that no user of it can: JSON to /sipedge/NAME. /sipedge/calls counts what was asked, /sipedge/ask asks
for a test that has no client of its own."""

import json
from collections import Counter
from urllib.parse import parse_qs

import boto3
from botocore.config import Config
from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends

import rpc
from clock import CLOCK
from commands import AGENTS
from groups import APPLIANCES
from images import SNAPSHOTS
from refusals import QUOTAS

REGION = "us-east-1"

# Names under which a service signs its requests and those of IAM policies, where they differ.
SERVICES = {"monitoring": "cloudwatch"}


class Control:
    """Counts calls, answers some of them with errors, and does what the tests wish."""

    def __init__(self):
        self.calls = Counter()
        self.faults = {}

    def observe(self, environ, body):
        """Counts a call; the answer to give instead of AWS's, if the tests have set one."""
        action = action_of(environ, body)
        if action is None:
            return None
        self.calls[action] += 1
        return self.fault_of(environ, body)

    def fault_of(self, environ, body):
        """The answer to give instead of AWS's, if the tests have set one."""
        action = action_of(environ, body)
        fault = self.faults.get(action)
        if fault is None:
            return None
        if fault["times"] is not None:
            fault["times"] -= 1
            if fault["times"] <= 0:
                del self.faults[action]
        return refusal(environ, action.split(":")[0], fault)

    def answer(self, name, wish):
        """Does what a test wishes; returns what it is told."""
        wishes = {
            "health": lambda: {"now": CLOCK.now},
            "calls": lambda: dict(self.calls),
            "calls/forget": self.calls.clear,
            "advance": lambda: CLOCK.leap(float(wish["seconds"])),
            "appliances": lambda: self._appliances(wish),
            "agent": lambda: AGENTS.wish(wish),
            "address": lambda: self._address(wish),
            "target": lambda: self._target(wish),
            "refresh/fail": lambda: self._fail_refresh(wish),
            "alarm": lambda: self._alarm(wish),
            "fault": lambda: self._fault(wish),
            "snapshots": lambda: self._snapshots(wish),
            "quota": lambda: QUOTAS.__setitem__((wish["service"], wish["code"]), wish["value"]),
        }
        if name not in wishes:
            raise KeyError(f"no such wish; there are {', '.join(sorted(wishes))}")
        told = wishes[name]() or {}
        CLOCK.catch_up()
        return told

    def _appliances(self, wish):
        """ready_s, drain_s: seconds, or null for never; broken_versions: versions whose instances never get ready."""
        for key, value in wish.items():
            if key not in ("ready_s", "drain_s", "broken_versions"):
                raise KeyError(key)
            setattr(APPLIANCES, key, set(value) if key == "broken_versions" else value)

    def _address(self, wish):
        """instance; address: its private one, at which a process of this machine can be, unlike at those of a VPC."""
        instance = ec2_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)].get_instance(wish["instance"])
        instance.nics[0].private_ip_address = wish["address"]

    def _snapshots(self, wish):
        """encrypted: whether the account encrypts by default; older: an image or a snapshot, and by how many seconds; settle: the state that
        images have from now on once they are registered, and those that are pending have now."""
        if "encrypted" in wish:
            SNAPSHOTS.encrypted = wish["encrypted"]
        if "settle" in wish:
            SNAPSHOTS.settle(ec2_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)], wish["settle"])
        if "older" in wish:
            SNAPSHOTS.make_older(ec2_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)], *wish["older"])

    def _target(self, wish):
        """instance; state, or null for as it is; reason, description."""
        backend = elbv2_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)]
        if wish.get("state") is None:
            backend.wished_health.pop(wish["instance"], None)
        else:
            reason = wish.get("reason", "Target.FailedHealthChecks")
            backend.wished_health[wish["instance"]] = (wish["state"], reason, wish.get("description", "Health checks failed"))

    def _fail_refresh(self, wish):
        """group; reason."""
        backend = autoscaling_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)]
        refresh = backend.refresh_in_progress(wish["group"])
        if refresh is None:
            raise KeyError(f"no refresh of {wish['group']} is in progress")
        refresh.failure = wish.get("reason", "The test wished it to fail")

    def _alarm(self, wish):
        """name; state: OK, ALARM, INSUFFICIENT_DATA."""
        backend = cloudwatch_backends[DEFAULT_ACCOUNT_ID][wish.get("region", REGION)]
        backend.set_alarm_state(wish["name"], wish.get("reason", "the test wished it"), "{}", wish["state"])

    def _fault(self, wish):
        """action, such as ssm:PutParameter; code; message; status; times, or null for always. times 0 takes it back."""
        if wish.get("times") == 0:
            self.faults.pop(wish["action"], None)
            return
        self.faults[wish["action"]] = {"status": 400, "message": "", "times": None, **wish}


CONTROL = Control()


def ask(port, wish):
    """Asks by boto3: service, operation (in boto3's spelling), arguments, region. Its calls are counted like anybody's."""
    told = getattr(client(port, wish["service"], wish.get("region", REGION)), wish["operation"])(**wish.get("arguments", {}))
    told.pop("ResponseMetadata", None)
    # An object in S3 is a stream.
    return {name: value.read().decode() if hasattr(value, "read") else value for name, value in told.items()}


def client(port, service, region=REGION):
    """One of boto3's."""
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}, retries={"max_attempts": 0}),
    )


def action_of(environ, body):
    """Service and operation of a request, as IAM policies name them."""
    try:
        scope = environ["HTTP_AUTHORIZATION"].split("Credential=")[1].split(",")[0]
        service = scope.split("/")[3]
    except (KeyError, IndexError):
        return None
    service = SERVICES.get(service, service)
    path = environ.get("PATH_INFO", "")
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return f"{service}:{target.split('.')[-1]}"
    if "/operation/" in path:
        return f"{service}:{path.split('/operation/')[1]}"
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        action = parse_qs(body.decode("utf-8", "replace")).get("Action")
        if action:
            return f"{service}:{action[0]}"
    if service == "ebs":
        return f"ebs:{block_action(environ['REQUEST_METHOD'], path.strip('/').split('/'))}"
    return f"{service}:{environ['REQUEST_METHOD']} {path}"


def block_action(method, path):
    """The EBS direct APIs are told apart by method and path."""
    if method == "POST":
        return "StartSnapshot" if len(path) == 1 else "CompleteSnapshot"
    if method == "PUT":
        return "PutSnapshotBlock"
    return "GetSnapshotBlock" if len(path) == 4 else "ListSnapshotBlocks"


def refusal(environ, service, fault):
    """An error in the words of the protocol that was asked in: status, headers, body."""
    code, message, status = fault["code"], fault["message"], fault["status"]
    escaped = message.replace("&", "&amp;").replace("<", "&lt;")
    request = "11111111-2222-3333-4444-555555555555"
    if environ.get("HTTP_SMITHY_PROTOCOL") == rpc.PROTOCOL:
        status, headers, body = rpc.error(status, f"com.amazonaws.{service}#{code}", message)
        return status, [*headers, ("x-amzn-RequestId", request)], body
    if environ.get("HTTP_X_AMZ_TARGET"):
        body = json.dumps({"__type": code, "message": message}).encode()
        return status, [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request)], body
    if service == "ebs":
        body = json.dumps({"Message": message}).encode()
        return status, [("Content-Type", "application/json"), ("x-amzn-ErrorType", code), ("x-amzn-RequestId", request)], body
    if service == "ec2":
        xml = f"<Response><Errors><Error><Code>{code}</Code><Message>{escaped}</Message></Error></Errors><RequestID>{request}</RequestID></Response>"
    else:
        xml = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{escaped}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"
    return status, [("Content-Type", "text/xml"), ("x-amzn-RequestId", request)], xml.encode()
