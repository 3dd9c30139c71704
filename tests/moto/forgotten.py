"""What Terraform asks for and moto takes without keeping it: a second plan would want to change it. Here it is kept, and told again."""

import functools

from moto.autoscaling.models import FakeScalingPolicy, LifecycleHook
from moto.autoscaling.responses import AutoScalingResponse
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.types import Base64EncodedString
from moto.ec2.models.launch_templates import LaunchTemplateVersion
from moto.ec2.models.nat_gateways import NatGateway
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.responses.nat_gateways import NatGateways
from moto.elbv2.models import AvailabilityZone, FakeLoadBalancer
from moto.elbv2.responses import ELBV2Response


def after(owner, name):
    """Runs the decorated function after a method of moto's, with what that has returned as its last argument."""

    def decorate(then):
        original = getattr(owner, name)

        @functools.wraps(original)
        def both(self, *arguments, **named):
            result = original(self, *arguments, **named)
            then(self, result)
            return result

        setattr(owner, name, both)
        return then

    return decorate


def keep_group_settings(response, _):
    """DefaultInstanceWarmup and InstanceMaintenancePolicy."""
    group = response.autoscaling_backend.autoscaling_groups[response._get_param("AutoScalingGroupName")]
    if (warmup := response._get_int_param("DefaultInstanceWarmup")) is not None:
        group.default_instance_warmup = warmup
    if policy := response._get_param("InstanceMaintenancePolicy"):
        group.instance_maintenance_policy = policy


def forget_invented_receivers(hook, _):
    """moto invents a role and a queue for every hook."""
    hook.role_arn = None
    hook.notification_target_arn = None


def keep_policy_switch(policy, _):
    """A policy is switched on, and is no predictive one unless it says so."""
    policy.enabled = True
    policy.predictive_scaling_configuration = policy.predictive_scaling_configuration or None


def keep_template_data_as_given(response, _):
    """moto adds the tags of the template to the data of its first version, as if instances were to have them."""
    template = response.ec2_backend.get_launch_template_by_name(response._get_param("LaunchTemplateName"))
    data = template.default_version().data
    given = [made for made in data.get("TagSpecifications", []) if made["ResourceType"] != "launch-template"]
    data["TagSpecifications"] = given


def keep_subnet_mappings(response, result):
    """The Elastic IP of each zone; and who asks for no scheme gets one that faces the Internet."""
    mappings = {mapping["SubnetId"]: mapping for mapping in response._get_params().get("SubnetMappings", [])}
    balancer = result.result["LoadBalancers"][0]
    balancer.scheme = balancer.scheme or "internet-facing"
    ec2 = response.elbv2_backend.ec2_backend
    balancer.zone_addresses = {}
    for subnet, mapping in mappings.items():
        if allocation := mapping.get("AllocationId"):
            address = ec2.address_by_allocation([allocation])[0]
            balancer.zone_addresses[subnet] = [{"AllocationId": allocation, "IpAddress": address.public_ip}]


def zones_with_addresses(balancer):
    zones = [AvailabilityZone(subnet) for subnet in balancer.subnets]
    for zone in zones:
        zone.load_balancer_addresses = getattr(balancer, "zone_addresses", {}).get(zone.subnet_id, [])
    return zones


def keep_secondary_addresses(response, result):
    """The addresses of a NAT gateway beside its first."""
    gateway = result.result["NatGateway"]
    for first in gateway.address_set:
        first["isPrimary"] = True
    for allocation in response._get_param("SecondaryAllocationIds", []):
        address = response.ec2_backend.address_by_allocation([allocation])[0]
        gateway.address_set.append(
            {
                "allocationId": allocation,
                "publicIp": address.public_ip,
                "networkInterfaceId": gateway._eni.id,
                "privateIp": gateway._eni.private_ip_address,
                "isPrimary": False,
                "status": "succeeded",
            }
        )


def heed_state_beside_prefix(response, result):
    """moto takes one condition of several."""
    if state := response._get_param("StateValue"):
        for kind, alarms in result.result.items():
            result.result[kind] = [alarm for alarm in alarms if alarm.state_value == state]


def user_data(version):
    """moto takes the user data of a template's first version alone for what it is."""
    text = version.data.get("UserData")
    return Base64EncodedString(text) if isinstance(text, str) else text


def describe_rule(rule):
    """moto knows the description of a rule by range only, not of one by group."""
    return rule.ip_range.get("Description") or (rule.source_group or {}).get("Description")


def install():
    for action in ("create_auto_scaling_group", "update_auto_scaling_group"):
        after(AutoScalingResponse, action)(keep_group_settings)
    after(LifecycleHook, "__init__")(forget_invented_receivers)
    after(FakeScalingPolicy, "__init__")(keep_policy_switch)
    after(LaunchTemplates, "create_launch_template")(keep_template_data_as_given)
    after(ELBV2Response, "create_load_balancer")(keep_subnet_mappings)
    FakeLoadBalancer.availability_zones = property(zones_with_addresses)
    after(NatGateways, "create_nat_gateway")(keep_secondary_addresses)
    after(CloudWatchResponse, "describe_alarms")(heed_state_beside_prefix)
    LaunchTemplateVersion.user_data = property(user_data)
    SecurityGroupRule.description = property(describe_rule)
