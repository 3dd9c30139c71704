"""What AWS refuses, or silently does not do, and moto does not know of: load balancers, target health, quotas.

moto finds the addresses of a backend by the name of its module, which is why these say that they are of moto's.
"""

import json

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.elbv2 import models as elbv2
from moto.elbv2.exceptions import ELBClientError, LoadBalancerNotFoundError, TargetGroupNotFoundError
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus
from moto.servicequotas import models as quotas
from moto.servicequotas import urls as quota_urls
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse

# Which target groups a listener of a Network Load Balancer may forward to ("Listeners for your Network Load Balancers").
FORWARDS = {"TCP": {"TCP", "TCP_UDP"}, "UDP": {"UDP", "TCP_UDP"}, "TCP_UDP": {"TCP_UDP"}, "TLS": {"TCP", "TLS"}}

# Quotas that the tests have set, and AWS's defaults (Service Quotas, 2026-11).
QUOTAS = {}
DEFAULT_QUOTAS = {
    ("ec2", "L-0263D0A3"): ("EC2-VPC Elastic IPs", 5.0),
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 5.0),
    ("elasticloadbalancing", "L-69A177A2"): ("Network Load Balancers per Region", 50.0),
    ("vpc", "L-F678F1CE"): ("VPCs per Region", 5.0),
    ("vpc", "L-FE5A380F"): ("NAT gateways per Availability Zone", 5.0),
}


class Balancers(ELBv2Backend):
    """Network Load Balancers."""

    __module__ = ELBv2Backend.__module__

    def __init__(self, *arguments, **named):
        # Instance -> (state, reason), as the tests wish.
        self.wished_health = {}
        super().__init__(*arguments, **named)

    def create_load_balancer(self, name, security_groups, subnet_ids, subnet_mappings=None, **named):
        if any(balancer.name == name for balancer in self.load_balancers.values()):
            raise ELBClientError("DuplicateLoadBalancerName", f"A load balancer with the same name '{name}' exists, but with different settings")
        if subnet_ids and subnet_mappings:
            raise ELBClientError("ValidationError", "You can specify either subnets or subnet mappings, but not both")
        self._check_mappings(subnet_ids, subnet_mappings or [], named.get("scheme"))
        balancer = super().create_load_balancer(name, security_groups, subnet_ids, subnet_mappings, **named)
        balancer.made_with_security_groups = bool(security_groups)
        self._hold_addresses(balancer, subnet_mappings or [])
        return balancer

    def delete_load_balancer(self, arn):
        balancer = self.load_balancers.get(arn)
        super().delete_load_balancer(arn)
        for address in self.ec2_backend.describe_addresses():
            if balancer and getattr(address, "balancer", None) == balancer.arn:
                address.balancer = None

    def set_security_groups(self, arn, sec_groups):
        balancer = self.load_balancers.get(arn)
        if balancer and balancer.type == "network" and sec_groups and not balancer.made_with_security_groups:
            raise ELBClientError(
                "InvalidConfigurationRequest",
                "You cannot set security groups for a Network Load Balancer that was created without one",
            )
        super().set_security_groups(arn, sec_groups)

    def set_subnets(self, arn, subnets, subnet_mappings):
        balancer = self.load_balancers.get(arn)
        if balancer is None:
            raise LoadBalancerNotFoundError()
        if balancer.type != "network":
            return super().set_subnets(arn, subnets, subnet_mappings)
        wanted = list(subnets) + [mapping["SubnetId"] for mapping in subnet_mappings]
        self._check_mappings(subnets, subnet_mappings, balancer.scheme, balancer)
        balancer.subnets = [self.ec2_backend.get_subnet(subnet) for subnet in wanted]
        self._hold_addresses(balancer, subnet_mappings)
        return balancer.availability_zones

    def create_listener(self, load_balancer_arn, protocol, port, ssl_policy, certificate, actions, alpn_policy=None, tags=None):
        balancer = self.load_balancers.get(load_balancer_arn)
        if balancer and any(str(listener.port) == str(port) for listener in balancer.listeners.values()):
            raise ELBClientError("DuplicateListener", f"A listener already exists on this port for this load balancer '{load_balancer_arn}'")
        if balancer and balancer.type == "network":
            self._check_forwards(protocol, actions)
            if protocol == "TLS" and not certificate:
                raise ELBClientError("ValidationError", "A certificate must be specified for TLS listeners")
        return super().create_listener(load_balancer_arn, protocol, port, ssl_policy, certificate, actions, alpn_policy, tags)

    def modify_listener(self, arn, port=None, protocol=None, ssl_policy=None, certificates=None, actions=None):
        found = [listener for balancer in self.load_balancers.values() if balancer.type == "network" for listener in balancer.listeners.values() if listener.arn == arn]
        if not found:
            return super().modify_listener(arn, port, protocol, ssl_policy, certificates, actions)
        listener = found[0]
        wanted = protocol or listener.protocol
        given = actions or [action.data for action in listener.default_actions]
        self._check_forwards(wanted, given)
        # moto knows HTTP, HTTPS and TCP here, and the change itself is the same for all.
        super().modify_listener(arn, port, None if wanted in ("UDP", "TCP_UDP", "TLS") else protocol, ssl_policy, certificates, actions or [])
        listener.protocol = wanted
        return listener

    def create_target_group(self, name, **named):
        protocol, check = named.get("protocol"), named.get("healthcheck_protocol")
        if protocol in ("TCP", "UDP", "TCP_UDP", "TLS") and check not in (None, "TCP", "HTTP", "HTTPS"):
            raise ELBClientError("ValidationError", f"Health check protocol '{check}' is not supported for target groups with the protocol '{protocol}'")
        return super().create_target_group(name, **named)

    def modify_target_group_attributes(self, target_group_arn, attributes):
        group = self.target_groups.get(target_group_arn)
        keeps = group and group.protocol in ("UDP", "TCP_UDP")
        if keeps and str(attributes.get("preserve_client_ip.enabled", "true")).lower() == "false":
            raise ELBClientError("InvalidConfigurationRequest", "Client IP preservation cannot be disabled for UDP and TCP_UDP target groups")
        super().modify_target_group_attributes(target_group_arn, attributes)

    def describe_target_health(self, target_group_arn, targets):
        group = self.target_groups.get(target_group_arn)
        if group is None:
            raise TargetGroupNotFoundError()
        return [self._health(group, health) for health in super().describe_target_health(target_group_arn, targets)]

    def _health(self, group, health):
        """moto's health, unless the load balancer does not send to the target's zone, or the tests wish another one."""
        if health.status != "healthy":
            return health
        told = lambda state, reason, words: FakeHealthStatus(health.instance_id, health.port, health.health_check_port, state, reason, words)
        balancers = [self.load_balancers[arn] for arn in group.load_balancer_arns if arn in self.load_balancers]
        if not balancers:
            return told("unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")
        instance = self.ec2_backend.get_instance_by_id(health.instance_id)
        zones = {subnet.availability_zone for balancer in balancers for subnet in balancer.subnets}
        if instance is not None and instance.placement.zone not in zones:
            return told("unused", "Target.NotInUse", "Target is in an Availability Zone that is not enabled for the load balancer")
        if wished := self.wished_health.get(health.instance_id):
            return told(wished[0], wished[1], wished[2])
        return health

    def _check_mappings(self, subnet_ids, mappings, scheme, balancer=None):
        wanted = list(subnet_ids) + [mapping["SubnetId"] for mapping in mappings]
        zones = [subnet.availability_zone for subnet in map(self.ec2_backend.get_subnet, wanted) if subnet]
        if len(set(zones)) != len(zones):
            raise ELBClientError("InvalidConfigurationRequest", "A load balancer cannot be attached to multiple subnets in the same Availability Zone")
        allocations = [mapping["AllocationId"] for mapping in mappings if mapping.get("AllocationId")]
        if allocations and scheme == "internal":
            raise ELBClientError("ValidationError", "Elastic IP addresses are not supported for load balancers with scheme 'internal'")
        if len(set(allocations)) != len(allocations):
            raise ELBClientError("InvalidConfigurationRequest", "An allocation ID can be specified for one subnet only")
        known = {address.allocation_id: address for address in self.ec2_backend.describe_addresses()}
        for allocation in allocations:
            address = known.get(allocation)
            if address is None:
                raise ELBClientError("AllocationIdNotFound", f"The allocation ID '{allocation}' does not exist")
            holder = getattr(address, "balancer", None)
            if address.association_id or (holder and (balancer is None or holder != balancer.arn)):
                raise ELBClientError("ResourceInUse", "The allocation IDs are not available for use")

    def _hold_addresses(self, balancer, mappings):
        allocations = {mapping.get("AllocationId") for mapping in mappings}
        for address in self.ec2_backend.describe_addresses():
            if address.allocation_id in allocations:
                address.balancer = balancer.arn

    def _check_forwards(self, protocol, actions):
        for action in actions:
            if (action.get("Type") or action.get("type")) != "forward":
                continue
            arns = [action.get("TargetGroupArn")] + [group["TargetGroupArn"] for group in (action.get("ForwardConfig") or {}).get("TargetGroups", [])]
            for arn in filter(None, arns):
                group = self.target_groups.get(arn)
                if group and group.protocol not in FORWARDS.get(protocol, set()):
                    raise ELBClientError(
                        "IncompatibleProtocols",
                        f"The listener and its associated target group '{arn}' have incompatible protocols: '{protocol}' and '{group.protocol}'",
                    )


class Addresses(EC2Backend):
    """Elastic IP addresses and VPCs up to the quota, if the tests have set one."""

    __module__ = EC2Backend.__module__

    def allocate_address(self, *arguments, **named):
        most = QUOTAS.get(("ec2", "L-0263D0A3"))
        if most is not None and len(self.describe_addresses()) >= most:
            raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        return super().allocate_address(*arguments, **named)

    def release_address(self, address=None, allocation_id=None):
        for known in self.describe_addresses():
            if allocation_id and known.allocation_id == allocation_id and getattr(known, "balancer", None):
                raise EC2ClientError("InvalidIPAddress.InUse", f"The address {known.public_ip} is in use by a load balancer.")
        return super().release_address(address, allocation_id)

    def create_vpc(self, *arguments, **named):
        most = QUOTAS.get(("vpc", "L-F678F1CE"))
        if most is not None and len(self.vpcs) >= most and not named.get("is_default"):
            raise EC2ClientError("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
        return super().create_vpc(*arguments, **named)


class Quotas(quotas.ServiceQuotasBackend):
    """More than those of VPC."""

    __module__ = quotas.ServiceQuotasBackend.__module__

    def get_service_quota(self, service_code, quota_code):
        if (service_code, quota_code) in QUOTAS:
            return self._told(service_code, quota_code, QUOTAS[service_code, quota_code])
        raise NoSuchResource()

    def default_quota(self, service_code, quota_code):
        if (service_code, quota_code) not in DEFAULT_QUOTAS:
            raise NoSuchResource()
        return self._told(service_code, quota_code, DEFAULT_QUOTAS[service_code, quota_code][1])

    def _told(self, service_code, quota_code, value):
        name = DEFAULT_QUOTAS.get((service_code, quota_code), (quota_code,))[0]
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "QuotaName": name, "Value": value, "Adjustable": True, "GlobalQuota": False}


class QuotaResponses(ServiceQuotasResponse):
    """The call that moto lacks."""

    def get_aws_default_service_quota(self):
        asked = json.loads(self.body)
        return json.dumps({"Quota": self.backend.default_quota(asked["ServiceCode"], asked["QuotaCode"])})


def install():
    """Puts these in the place of moto's."""
    elbv2.elbv2_backends.backend = Balancers
    ec2_backends.backend = Addresses
    quotas.servicequotas_backends.backend = Quotas
    quota_urls.url_paths = {"{0}/$": QuotaResponses.dispatch}
