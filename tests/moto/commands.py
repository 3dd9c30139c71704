"""Run Command of Systems Manager: which instances have an agent, and what a command puts out there. moto has every command succeed with
nothing at once, on instances that do not exist too.

A command runs in a shell of this machine where the tests have named an instance's process; else its output is what they wish.
"""

import os
import shlex
import subprocess

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.ssm import models
from moto.ssm.models import SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

# What SendCommand takes.
MOST_INSTANCES = 50
LEAST_TIMEOUT_S = 30

# What a shell says of a program that is not there.
NOTHING_RUNS = {"code": 127, "output": "", "error": "sh: 1: sipedge-proxy: not found\nfailed to run commands: exit status 127"}

# Looks that are answered before the command is there, and while it runs.
NOT_THERE_YET = 1
RUNNING = 1


class Agents:
    """What the instances' agents do. The tests change it, by instance, or by * for those that are not named."""

    def __init__(self):
        # online, none: no agent has reported; lost: it reports no more; late: it takes no command; slow: it ends none.
        self.states = {}
        # Program and control socket of a process that stands for the instance's.
        self.processes = {}
        # code, output, error of a command.
        self.outputs = {}

    def state(self, instance):
        return self.states.get(instance, self.states.get("*", "online"))

    def run(self, instance, commands):
        if instance in self.processes:
            program, socket = self.processes[instance]
            path = f"{os.path.dirname(program)}:{os.environ.get('PATH', '')}"
            # The socket of an instance of its own is at the place where the program looks by itself.
            script = "\n".join(f"{command} --control {shlex.quote(socket)}" for command in commands)
            ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20, env={**os.environ, "PATH": path})
            return {"code": ran.returncode, "output": ran.stdout, "error": ran.stderr}
        return {"code": 0, "error": "", **self.outputs.get(instance, self.outputs.get("*", NOTHING_RUNS))}

    def wish(self, wish):
        """instance, or * for all; state; program and control, or output, code and error."""
        instance = wish["instance"]
        if "state" in wish:
            self.states[instance] = wish["state"]
        if "program" in wish:
            self.processes[instance] = (wish["program"], wish["control"])
        if "output" in wish or "code" in wish:
            self.processes.pop(instance, None)
            self.outputs[instance] = {key: wish[key] for key in ("output", "code", "error") if key in wish}


AGENTS = Agents()


class Commands(SimpleSystemManagerBackend):
    """The service."""

    __module__ = SimpleSystemManagerBackend.__module__

    def send_command(self, **asked):
        instances = asked["instance_ids"] or []
        if len(instances) > MOST_INSTANCES:
            raise JsonRESTError("ValidationException", f"Value at 'instanceIds' failed to satisfy constraint: at most {MOST_INSTANCES}")
        if (asked["timeout_seconds"] or LEAST_TIMEOUT_S) < LEAST_TIMEOUT_S:
            raise JsonRESTError("ValidationException", f"Value at 'timeoutSeconds' failed to satisfy constraint: at least {LEAST_TIMEOUT_S}")
        if asked["document_name"] != "AWS-RunShellScript":
            raise JsonRESTError("InvalidDocument", f"Document with name {asked['document_name']} does not exist.")
        if strangers := [instance for instance in instances if AGENTS.state(instance) == "none" or not self._runs(instance)]:
            raise JsonRESTError("InvalidInstanceId", f"Instances {strangers} not in a valid state for account {self.account_id}")
        command = super().send_command(**asked)
        command.looks = dict.fromkeys(instances, 0)
        command.ran = {}
        return command

    def get_command_invocation(self, command_id, instance_id, plugin_name):
        command = self.get_command_by_id(command_id)
        if instance_id not in command.looks or command.looks[instance_id] < NOT_THERE_YET:
            if instance_id in command.looks:
                command.looks[instance_id] += 1
            raise JsonRESTError("InvocationDoesNotExist", "")
        command.looks[instance_id] += 1
        told = dict(command.get_invocation(instance_id, plugin_name))
        state = AGENTS.state(instance_id)
        if state in ("late", "lost"):
            return {**told, "ResponseCode": -1, "Status": "Pending", "StatusDetails": "Pending"}
        if state == "slow" or command.looks[instance_id] <= NOT_THERE_YET + RUNNING:
            return {**told, "ResponseCode": -1, "Status": "InProgress", "StatusDetails": "InProgress"}
        if instance_id not in command.ran:
            command.ran[instance_id] = AGENTS.run(instance_id, command.parameters["commands"])
        ran = command.ran[instance_id]
        how = "Success" if ran["code"] == 0 else "Failed"
        output = {"StandardOutputContent": ran.get("output", ""), "StandardErrorContent": ran["error"]}
        return {**told, **output, "ResponseCode": ran["code"], "Status": how, "StatusDetails": how}

    def instance_information(self, instances):
        """Agents that have reported, of instances that run."""
        known = [instance for instance in instances if AGENTS.state(instance) != "none" and self._runs(instance)]
        ping = lambda instance: "ConnectionLost" if AGENTS.state(instance) == "lost" else "Online"
        return [{"InstanceId": instance, "PingStatus": ping(instance), "PlatformType": "Linux"} for instance in known]

    def _runs(self, instance):
        found = models.ec2_backends[self.account_id][self.region_name].get_instance_by_id(instance)
        return found is not None and found.state == "running"


class Responses(SimpleSystemManagerResponse):
    """The call that moto lacks."""

    def describe_instance_information(self):
        filters = {one["Key"]: one["Values"] for one in self._get_param("Filters") or []}
        return ActionResult({"InstanceInformationList": self.ssm_backend.instance_information(filters["InstanceIds"])})


def install():
    """Puts these in the place of moto's."""
    models.ssm_backends.backend = Commands
    SimpleSystemManagerResponse.describe_instance_information = Responses.describe_instance_information
