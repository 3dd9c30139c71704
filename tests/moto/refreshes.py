"""Instance refreshes, as the API reference of Amazon EC2 Auto Scaling describes them."""

import math
import uuid
from datetime import datetime, timezone

from moto.autoscaling import urls
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.responses import ActionResult

from clock import CLOCK
from groups import Responses

# AWS looks at a refresh every few seconds.
LOOK_S = 1

# Launches that are abandoned until AWS gives up (it does so after an hour; a test has no hour).
ABANDONED = 3


class Refresh:
    """One refresh."""

    def __init__(self, backend, group, version, preferences):
        self.backend = backend
        self.group = group
        self.id = str(uuid.uuid4())
        self.status = "Pending"
        self.reason = None
        self.preferences = preferences
        self.version = version
        self.desired = version or group.version
        self.before = group.provided_launch_template_version
        self.started = datetime.now(timezone.utc)
        self.ended = None
        self.updated = set()
        self.asked = None
        self.failure = None
        self.rollback = None
        skip = preferences["SkipMatching"]
        self.to_update = [member for member in group.members() if not (skip and member.version == self.desired)]
        self.total = len(self.to_update)

    @property
    def over(self):
        return self.status in ("Successful", "Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed")

    def run(self):
        """The whole of it."""
        yield LOOK_S
        self.status = "InProgress"
        self.group.refreshing_to = self.desired
        outcome = yield from self._replace(self.to_update, self.desired, checkpoints=True)
        if outcome is None and self.preferences["BakeTime"] and self.total:
            self.status, self.reason = "Baking", "Waiting for the bake time to pass"
            outcome = yield from self._wait(self.preferences["BakeTime"])
        self.group.refreshing_to = None
        if outcome is None:
            if self.version:
                self.group.launch_template_version = str(self.version)
                self.group.provided_launch_template_version = str(self.version)
            return self._end("Successful", None)
        if outcome == "cancel":
            self.status = "Cancelling"
            yield LOOK_S
            return self._end("Cancelled", "Cancelled by user request")
        if outcome == "fail" and not self.preferences["AutoRollback"]:
            return self._end("Failed", self.failure)
        yield from self._roll_back()

    def _roll_back(self):
        self.rollback = {
            "RollbackReason": self.failure or "Rolled back by user request",
            "RollbackStartTime": datetime.now(timezone.utc),
            "PercentageCompleteOnRollback": self.percent,
            "InstancesToUpdateOnRollback": self.instances_to_update,
        }
        self.status, self.reason, self.asked, self.failure = "RollbackInProgress", self.rollback["RollbackReason"], None, None
        old = self.group.version
        self.group.refreshing_to = old
        new_ones = [member for member in self.group.members() if member.version != old]
        # Those that stood beside all old ones go; only the others have to be replaced.
        kept = len(self.group.members()) - len(new_ones)
        missing = max(0, (self.group.desired_capacity or 0) - kept)
        for member in new_ones[missing:]:
            self.group.terminate(member)
        outcome = yield from self._replace(new_ones[:missing], old, checkpoints=False)
        self.group.refreshing_to = None
        if outcome is None:
            self.updated.clear()
            return self._end("RollbackSuccessful", self.rollback["RollbackReason"])
        self._end("RollbackFailed" if outcome == "fail" else "Cancelled", self.failure)

    def _replace(self, members, version, checkpoints):
        """Replaces instances in batches. Returns why it ended early: cancel, fail, rollback; None: it did not."""
        group, size = self.group, max(1, len(self.group.members()))
        surplus = math.floor(size * self.preferences["MaxHealthyPercentage"] / 100) - size
        missing = size - math.ceil(size * self.preferences["MinHealthyPercentage"] / 100)
        batch_size = max(1, surplus if surplus > 0 else missing)
        pauses = [math.ceil(self.total * percent / 100) for percent in self.preferences["CheckpointPercentages"] if percent < 100]
        pauses = pauses if checkpoints else []
        left = list(members)
        while left:
            if early := self._early():
                return early
            done = len(members) - len(left)
            room = min([pause - done for pause in pauses if pause > done], default=len(left))
            batch = [left.pop(0) for _ in range(min(batch_size, room, len(left)))]
            if surplus <= 0:
                for member in batch:
                    group.terminate(member)
                yield lambda batch=batch: all(member not in group.instance_states for member in batch) or bool(self._early())
            self.reason = "Waiting for instances to warm up before continuing"
            launched = [group.launch(version) for _ in batch]
            early = yield from self._warm_up(launched, version)
            if early:
                return early
            for old, new in zip(batch, launched):
                self.updated.add(new.instance_id) if checkpoints else self.updated.discard(old.instance_id)
            for member in batch:
                group.terminate(member)
            if len(members) - len(left) in pauses:
                self.reason = "Waiting at a checkpoint for the checkpoint delay to pass"
                early = yield from self._wait(self.preferences["CheckpointDelay"])
                if early:
                    return early
        # The last ones drain before the refresh is over.
        yield lambda: all(member not in group.instance_states for member in members) or bool(self._early())
        return self._early()

    def _warm_up(self, launched, version):
        """Waits until instances are in service and warm, and swaps those that were abandoned for the ones that AWS launched instead."""
        abandoned = 0
        while True:
            if early := self._early():
                return early
            for index, member in enumerate(launched):
                if member.leaving:
                    abandoned += 1
                    taken = set(launched)
                    others = [other for other in self.group.members() if other.version == version and other not in taken]
                    launched[index] = next((other for other in others if other.in_service_since is None), None) or self.group.launch(version)
            if abandoned >= ABANDONED:
                self.failure = "Instances failed to launch: the launching lifecycle hook was abandoned"
                return "fail"
            warm = self.preferences["InstanceWarmup"]
            if all(member.in_service_since is not None and CLOCK.now - member.in_service_since >= warm for member in launched):
                return None
            yield LOOK_S

    def _wait(self, seconds):
        until = CLOCK.now + seconds
        while CLOCK.now < until:
            if early := self._early():
                return early
            yield min(LOOK_S, until - CLOCK.now)
        return self._early()

    def _early(self):
        """Whether to end early."""
        if self.asked:
            return self.asked
        if self.failure:
            return "fail"
        if self.rollback is None:
            alarms = cloudwatch_backends[self.backend.account_id][self.backend.region_name].alarms
            for name in self.preferences["AlarmSpecification"].get("Alarms", []):
                if name in alarms and alarms[name].state_value == "ALARM":
                    self.failure = f"CloudWatch alarm {name} is in ALARM state"
                    return "fail"
        return None

    def _end(self, status, reason):
        self.status, self.reason, self.ended = status, reason, datetime.now(timezone.utc)
        self.group.refreshing_to = None

    @property
    def percent(self):
        if self.status in ("RollbackSuccessful",):
            return 0
        return math.floor(100 * len(self.updated) / self.total) if self.total else (100 if self.over else 0)

    @property
    def instances_to_update(self):
        return max(0, self.total - len(self.updated))

    def described(self):
        """As DescribeInstanceRefreshes tells it."""
        told = {
            "InstanceRefreshId": self.id,
            "AutoScalingGroupName": self.group.name,
            "Status": self.status,
            "StatusReason": self.reason,
            "StartTime": self.started,
            "EndTime": self.ended,
            "PercentageComplete": self.percent,
            "InstancesToUpdate": self.instances_to_update,
            "Preferences": self.preferences,
            "Strategy": "Rolling",
            "RollbackDetails": self.rollback,
        }
        if self.version:
            template = self.group.ec2_launch_template
            told["DesiredConfiguration"] = {"LaunchTemplate": {"LaunchTemplateId": template.id, "Version": str(self.version)}}
        return {key: value for key, value in told.items() if value is not None}


class RefreshResponses(Responses):
    """The calls."""

    def start_instance_refresh(self):
        backend = self.autoscaling_backend
        group = backend.named(self._get_param("AutoScalingGroupName"))
        strategy = self._get_param("Strategy", "Rolling")
        if strategy != "Rolling":
            raise ValidationError(f"This stand-in knows the strategy Rolling, and not {strategy}")
        if backend.refresh_in_progress(group.name):
            raise AutoscalingClientError("InstanceRefreshInProgress", "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.")
        version = None
        if template := (self._get_param("DesiredConfiguration") or {}).get("LaunchTemplate"):
            wanted = template.get("LaunchTemplateId") or template.get("LaunchTemplateName")
            if wanted not in (group.ec2_launch_template.id, group.ec2_launch_template.name):
                raise ValidationError(f"This stand-in knows refreshes to another version of the group's own template, and not to {wanted}")
            number = str(template.get("Version", "$Default"))
            if number in ("$Latest", "$Default"):
                version = group.ec2_launch_template.get_version(number).number
            elif number.isdigit() and 1 <= int(number) <= group.ec2_launch_template.latest_version_number:
                version = int(number)
            else:
                raise ValidationError(f"You must use a valid fully-formed launch template. Could not find launch template version {number}")
        preferences = checked(self._get_param("Preferences") or {})
        if preferences["AutoRollback"] and version is None:
            raise ValidationError("AutoRollback requires a DesiredConfiguration")
        refresh = Refresh(backend, group, version, preferences)
        backend.refreshes.insert(0, refresh)
        CLOCK.start(refresh.run())
        return ActionResult({"InstanceRefreshId": refresh.id})

    def describe_instance_refreshes(self):
        backend = self.autoscaling_backend
        group = backend.named(self._get_param("AutoScalingGroupName"))
        ids = self._get_param("InstanceRefreshIds") or []
        found = [refresh for refresh in backend.refreshes if refresh.group is group and (not ids or refresh.id in ids)]
        found = found[: self._get_int_param("MaxRecords", 50)]
        return ActionResult({"InstanceRefreshes": [refresh.described() for refresh in found]})

    def cancel_instance_refresh(self):
        return self._ask("cancel")

    def rollback_instance_refresh(self):
        return self._ask("rollback")

    def _ask(self, what):
        backend = self.autoscaling_backend
        group = backend.named(self._get_param("AutoScalingGroupName"))
        refresh = backend.refresh_in_progress(group.name)
        if refresh is None or (what == "rollback" and refresh.status == "RollbackInProgress"):
            raise AutoscalingClientError("ActiveInstanceRefreshNotFound", f"No in progress or pending Instance Refresh found for Auto Scaling group {group.name}")
        if what == "rollback" and (refresh.version is None or not str(refresh.before).isdigit()):
            raise AutoscalingClientError(
                "IrreversibleInstanceRefresh",
                "The instance refresh cannot be rolled back: it has no desired configuration, or the group's launch template version is $Latest or $Default.",
            )
        refresh.asked = what
        if what == "cancel":
            refresh.status = "Cancelling"
        return ActionResult({"InstanceRefreshId": refresh.id})


def checked(given):
    """Preferences with AWS's defaults, or the refusal that AWS would answer with."""
    preferences = {
        "MinHealthyPercentage": 90,
        "MaxHealthyPercentage": 100,
        "InstanceWarmup": 0,
        "CheckpointPercentages": [],
        "CheckpointDelay": 3600,
        "SkipMatching": False,
        "AutoRollback": False,
        "ScaleInProtectedInstances": "Ignore",
        "StandbyInstances": "Ignore",
        "AlarmSpecification": {},
        "BakeTime": 0,
        **given,
    }
    least, most = preferences["MinHealthyPercentage"], preferences["MaxHealthyPercentage"]
    points = preferences["CheckpointPercentages"]
    if not 0 <= least <= 100:
        raise ValidationError(f"MinHealthyPercentage {least} is not within 0 and 100")
    if not 100 <= most <= 200:
        raise ValidationError(f"MaxHealthyPercentage {most} is not within 100 and 200")
    if most - least > 100:
        raise ValidationError("The difference between MaxHealthyPercentage and MinHealthyPercentage cannot be greater than 100")
    if any(not 1 <= point <= 100 for point in points) or sorted(set(points)) != points:
        raise ValidationError(f"CheckpointPercentages {points} must be unique, in ascending order, and within 1 and 100")
    for key in ("CheckpointDelay", "BakeTime"):
        if not 0 <= preferences[key] <= 172800:
            raise ValidationError(f"{key} {preferences[key]} is not within 0 and 172800")
    return preferences


def install():
    """Puts these in the place of moto's."""
    urls.url_paths = {"{0}/$": RefreshResponses.dispatch}
