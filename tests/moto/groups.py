"""Autoscaling groups whose instances take time: to boot, to be let in by a launching hook, to drain before a terminating one."""

import random
import re
import zlib
from base64 import b64decode

from moto.autoscaling import models
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import ASG_NAME_TAG, AutoScalingBackend, FakeAutoScalingGroup, InstanceState
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from clock import CLOCK

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"

# From the launch to the state `running` (AWS: 10 to 20 s).
PENDING_S = 10


class Appliances:
    """What the instances would do, were there any. The tests change it."""

    def __init__(self):
        # Seconds from `running` until an instance completes its launching hook; None: it never does.
        self.ready_s = 20
        # Seconds from the terminating hook until an instance completes it; None: it never does.
        self.drain_s = 30
        # Launch template versions whose instances never get ready.
        self.broken_versions = set()


APPLIANCES = Appliances()


class Member(InstanceState):
    """An instance of a group, with the launch template version that it came from."""

    def __init__(self, instance, group, version):
        super().__init__(instance, lifecycle_state="Pending", autoscaling_group=group)
        self.version = version
        self.token = None
        self.result = None
        self.deadline = None
        self.born = CLOCK.now
        self.in_service_since = None

    @property
    def launch_template(self):
        template = self.auto_scaling_group.ec2_launch_template
        if template is None:
            return None
        return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": str(self.version)}

    @property
    def leaving(self):
        return self.lifecycle_state.startswith("Terminat")


class Group(FakeAutoScalingGroup):
    """A group that launches and terminates by the clock."""

    __module__ = models.__name__  # moto sorts its models by their modules' names

    def __init__(self, *arguments, **named):
        self.refreshing_to = None
        super().__init__(*arguments, **named)

    @property
    def version(self):
        """The number of the launch template version that new instances get."""
        return self.ec2_launch_template.get_version(self.launch_template_version).number

    def members(self):
        """Instances that are here to stay."""
        return [member for member in self.instance_states if not member.leaving]

    def set_desired_capacity(self, new_capacity):
        self.desired_capacity = self.min_size if new_capacity is None else new_capacity
        members = self.members()
        for _ in range(self.desired_capacity - len(members)):
            self.launch()
        # AWS's default termination policy, of the oldest version first, near enough.
        surplus = sorted(members, key=lambda member: (member.version == self.version, member.born))
        for member in surplus[: max(0, len(members) - self.desired_capacity)]:
            self.terminate(member)

    def replace_autoscaling_group_instances(self, count_needed, propagated_tags):
        for _ in range(count_needed):
            self.launch()

    def launch(self, version=None):
        """Launches an instance of a version, by default of the group's own or of the refresh in progress."""
        number = version or self.refreshing_to or self.version
        template = self.ec2_launch_template.get_version(number)
        subnets = self.autoscaling_backend.ec2_backend.describe_subnets(
            subnet_ids=self.vpc_zone_identifier.split(",") if self.vpc_zone_identifier else None
        )
        # As AWS does: the zone that has fewest; those that a refresh is about to replace do not count.
        zones = [member.availability_zone for member in self.members() if member.version == number]
        subnet = min(subnets, key=lambda subnet: (zones.count(subnet.availability_zone), subnet.id)) if self.vpc_zone_identifier else None
        tags = {**self.get_propagated_tags(), ASG_NAME_TAG: self.name, **template.instance_tags}
        reservation = self.autoscaling_backend.ec2_backend.run_instances(
            template.image_id,
            1,
            template.user_data,
            template.security_groups,
            instance_type=template.instance_type,
            tags={"instance": tags},
            placement=subnet.availability_zone if subnet else random.choice(self.availability_zones),
            launch_config=None,
            launch_template={"LaunchTemplateId": self.ec2_launch_template.id, "Version": str(number)},
            is_instance_type_default=False,
            associate_public_ip=None,
            subnet_id=subnet.id if subnet else None,
        )
        instance = reservation.instances[0]
        instance.autoscaling_group = self
        member = Member(instance, self, number)
        self.instance_states.append(member)
        CLOCK.start(self._life(member))
        return member

    def terminate(self, member):
        """Takes an instance out of the target groups, lets it drain, and ends it."""
        if not member.leaving:
            CLOCK.start(self._end(member))

    def _life(self, member):
        yield PENDING_S
        if member.leaving:
            return
        let_in = yield from self._hook(member, LAUNCHING, "Pending:Wait", self._ready_in(member))
        if member.leaving:
            return
        if not let_in:
            # AWS terminates what was abandoned and launches another one, which may fare better.
            self.terminate(member)
            if len(self.members()) < (self.desired_capacity or 0):
                self.launch(member.version)
            return
        self._call_itself(member)
        member.lifecycle_state = "InService"
        member.in_service_since = CLOCK.now
        self.autoscaling_backend.register(self, member)

    def _end(self, member):
        was_in_service = member.lifecycle_state == "InService"
        member.lifecycle_state = "Terminating"
        self.autoscaling_backend.deregister(self, member)
        if was_in_service:
            yield from self._hook(member, TERMINATING, "Terminating:Wait", APPLIANCES.drain_s)
        member.lifecycle_state = "Terminated"
        self.autoscaling_backend.ec2_backend.terminate_instances([member.instance_id])
        if member in self.instance_states:
            self.instance_states.remove(member)

    def _hook(self, member, transition, state, appliance_s):
        """Waits for the hook to be completed: by a call, by the appliance, or by its time-out. Returns whether to go on."""
        hooks = [hook for hook in self.autoscaling_backend.describe_lifecycle_hooks(self.name) if hook.lifecycle_transition == transition]
        if not hooks:
            return True
        hook = hooks[0]
        member.lifecycle_state = state
        member.token = f"{random.getrandbits(128):032x}"
        member.result = None
        member.deadline = CLOCK.now + hook.heartbeat_timeout
        done = None if appliance_s is None else CLOCK.now + appliance_s
        while member.result is None:
            moments = [moment for moment in (done, member.deadline) if moment is not None]
            yield max(0.001, min(min(moments) - CLOCK.now, 1))
            if member.result is None and done is not None and CLOCK.now >= done:
                member.result = "CONTINUE"
            elif member.result is None and CLOCK.now >= member.deadline:
                member.result = hook.default_result
        go_on = member.result == "CONTINUE"
        member.token = member.result = member.deadline = None
        if transition == TERMINATING or go_on:
            member.lifecycle_state = state.replace("Wait", "Proceed")
        return go_on

    def _ready_in(self, member):
        return None if member.version in APPLIANCES.broken_versions else APPLIANCES.ready_s

    def _call_itself(self, member):
        """What an appliance with an Elastic IP does before it is let in: it associates the address with itself."""
        text = decoded(self.ec2_launch_template.get_version(member.version).user_data)
        ec2 = self.autoscaling_backend.ec2_backend
        known = {address.allocation_id for address in ec2.describe_addresses()}
        for allocation in set(re.findall(r"eipalloc-[0-9a-f]+", text)) & known:
            ec2.associate_address(instance=member.instance, allocation_id=allocation, reassociate=True)


class Groups(AutoScalingBackend):
    """The service."""

    __module__ = models.__name__  # by which moto finds the service's addresses

    def __init__(self, *arguments, **named):
        self.refreshes = []
        super().__init__(*arguments, **named)

    def reset(self):
        CLOCK.forget()
        super().reset()

    def create_auto_scaling_group(self, **named):
        if named["name"] in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists", f"AutoScalingGroup by this name already exists - A group with the name {named['name']} already exists"
            )
        in_bounds(named["min_size"], named["max_size"], named["desired_capacity"])
        return super().create_auto_scaling_group(**named)

    def update_auto_scaling_group(self, name, **named):
        group = self.autoscaling_groups.get(name)
        if group:
            bounds = [named[key] if named[key] is not None else getattr(group, key) for key in ("min_size", "max_size")]
            in_bounds(*bounds, named["desired_capacity"])
            if not named["launch_config_name"] and not named["launch_template"] and not named["mixed_instances_policy"]:
                # moto takes an update that names no template for one that removes it.
                template = group.ec2_launch_template
                named["launch_template"] = {"LaunchTemplateId": template.id, "Version": group.provided_launch_template_version}
        return super().update_auto_scaling_group(name=name, **named)

    def delete_auto_scaling_group(self, group_name, force=False):
        group = self.named(group_name)
        if group.instance_states and not force:
            raise AutoscalingClientError("ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in the group.")
        if self.refresh_in_progress(group_name) and not force:
            raise AutoscalingClientError("ScalingActivityInProgress", "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that group.")
        group.desired_capacity = 0
        for member in list(group.instance_states):
            self.deregister(group, member)
            member.lifecycle_state = "Terminated"
            self.ec2_backend.terminate_instances([member.instance_id])
        group.instance_states = []
        self.autoscaling_groups.pop(group_name)
        self.refreshes = [refresh for refresh in self.refreshes if refresh.group is not group]
        for key in [key for key, hook in self.lifecycle_hooks.items() if hook.auto_scaling_group_name == group_name]:
            self.lifecycle_hooks.pop(key)

    def create_lifecycle_hook(self, name, as_name, transition, timeout, result):
        self.named(as_name)
        before = self.lifecycle_hooks.get(f"{as_name}_{name}")
        if not transition and not before:
            raise ValidationError("Lifecycle hook transition is required")
        if timeout is not None and not 30 <= timeout <= 7200:
            raise ValidationError(f"Heartbeat timeout {timeout} is not within 30 and 7200 seconds")
        return super().create_lifecycle_hook(name, as_name, transition or before.lifecycle_transition, timeout, result)

    def update_attached_target_groups(self, group_name):
        """Instances are registered when they are let in, and deregistered when they begin to leave."""

    def register(self, group, member):
        for arn in group.target_group_arns:
            if target_group := self.elbv2_backend.target_groups.get(arn):
                target_group.register([{"Id": member.instance_id, "Port": target_group.port}])

    def deregister(self, group, member):
        for arn in group.target_group_arns:
            target_group = self.elbv2_backend.target_groups.get(arn)
            if target_group and member.instance_id in target_group.targets:
                target_group.deregister([{"Id": member.instance_id}])

    def notify_terminate_instances(self, instance_ids):
        """Instances that somebody else has ended: the group replaces them."""
        for group in list(self.autoscaling_groups.values()):
            for member in [member for member in group.instance_states if member.instance_id in instance_ids]:
                if member.lifecycle_state == "Terminated":
                    continue
                member.lifecycle_state = "Terminated"
                group.instance_states.remove(member)
                if len(group.members()) < (group.desired_capacity or 0):
                    group.launch()

    def named(self, group_name):
        if group_name not in self.autoscaling_groups:
            raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{group_name}' not found")
        return self.autoscaling_groups[group_name]

    def refresh_in_progress(self, group_name):
        return next((refresh for refresh in self.refreshes if refresh.group.name == group_name and not refresh.over), None)

    def waiting_member(self, group_name, hook_name, token, instance_id):
        """The instance whose hook a call means."""
        group = self.named(group_name)
        if not self.describe_lifecycle_hooks(group_name, [hook_name]):
            raise ValidationError(f"No Lifecycle Hook found with name {hook_name}")
        for member in group.instance_states:
            if member.deadline is not None and (member.token == token if token else member.instance_id == instance_id):
                return member
        raise ValidationError(f"No active Lifecycle Action found with {'token ' + token if token else 'instance ID ' + str(instance_id)}")


class Responses(AutoScalingResponse):
    """The calls that moto lacks. Those of instance refreshes are in refreshes.py."""

    def delete_auto_scaling_group(self):
        self.autoscaling_backend.delete_auto_scaling_group(
            self._get_param("AutoScalingGroupName"), force=self._get_bool_param("ForceDelete", False)
        )
        return EmptyResult()

    def complete_lifecycle_action(self):
        member = self._waiting_member()
        result = self._get_param("LifecycleActionResult")
        if result not in ("CONTINUE", "ABANDON"):
            raise ValidationError(f"Lifecycle action result {result} is not CONTINUE or ABANDON")
        member.result = result
        return ActionResult({})

    def record_lifecycle_action_heartbeat(self):
        member = self._waiting_member()
        hook = self.autoscaling_backend.describe_lifecycle_hooks(
            self._get_param("AutoScalingGroupName"), [self._get_param("LifecycleHookName")]
        )[0]
        member.deadline = CLOCK.now + hook.heartbeat_timeout
        return ActionResult({})

    def _waiting_member(self):
        return self.autoscaling_backend.waiting_member(
            self._get_param("AutoScalingGroupName"),
            self._get_param("LifecycleHookName"),
            self._get_param("LifecycleActionToken"),
            self._get_param("InstanceId"),
        )


def in_bounds(least, most, desired):
    if least is not None and most is not None and least > most:
        raise ValidationError(f"Min bound, {least}, must be less than or equal to max bound, {most}")
    if desired is not None and most is not None and desired > most:
        raise ValidationError(f"Desired capacity:{desired} must be between the specified min size:{least} and max size:{most}")
    if desired is not None and least is not None and desired < least:
        raise ValidationError(f"Desired capacity:{desired} must be between the specified min size:{least} and max size:{most}")


def decoded(user_data):
    """User data as text; it may be compressed."""
    data = b64decode(str(user_data)) if user_data else b""
    if data[:2] == b"\x1f\x8b":
        data = zlib.decompress(data, 31)
    return data.decode("utf-8", "replace")


def install():
    """Puts these in the place of moto's."""
    models.FakeAutoScalingGroup = Group
    models.autoscaling_backends.backend = Groups
