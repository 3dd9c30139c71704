locals {
  # What a listener takes, as rules know it.
  protocols = {
    TCP_UDP = ["udp", "tcp"]
    UDP     = ["udp"]
    TCP     = ["tcp"]
  }
  transports = merge([for listener in var.listeners : {
    for protocol in local.protocols[listener.protocol] : "${protocol}-${listener.port}" => { protocol = protocol, port = listener.port }
  }]...)

  # Names of those whom a range belongs to: carriers may share one.
  names_of_range = { for pair in flatten([for name, ranges in var.carrier_ranges : [for range in ranges : { name = name, range = range }]]) : pair.range => pair.name... }

  sip = merge([for range, names in local.names_of_range : {
    for key, transport in local.transports : "${key}-${range}" => merge(transport, { range = range, names = join(", ", sort(distinct(names))) })
  }]...)

  instance_rules = var.load_balanced ? {} : local.sip
  balancer_rules = var.load_balanced ? local.sip : {}

  # From the load balancer to the instances: calls, and the question whether they are ready.
  inside = var.load_balanced ? merge(local.transports, { "tcp-${var.admin_port}" = { protocol = "tcp", port = var.admin_port } }) : {}
}

resource "aws_security_group" "instances" {
  #checkov:skip=CKV2_AWS_5:the launch template of modules/instances attaches it
  name_prefix = "${var.name}-instances-"
  description = "Instances of the SIP edge"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-instances" }

  lifecycle {
    # A group that has to be replaced has its successor first. Its description alone is no reason: AWS changes none.
    create_before_destroy = true
    ignore_changes        = [description]

    precondition {
      condition     = length(local.sip) <= var.rules_quota
      error_message = "${length(local.names_of_range)} ranges over ${length(local.transports)} transports need ${length(local.sip)} rules; this account admits ${var.rules_quota} in a security group (quota L-0EA8095F). Join ranges, leave out a listener, or have the quota raised and set rules_quota."
    }
  }
}

# Rules of a group that is replaced stay until those of its successor are there.
resource "aws_vpc_security_group_ingress_rule" "carriers_to_instances" {
  for_each = local.instance_rules

  security_group_id = aws_security_group.instances.id
  description       = "SIP from ${each.value.names}"
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.range

  lifecycle {
    create_before_destroy = true
  }
}

# The load balancer keeps the caller's address; a rule that names its group admits what has passed that group, and nothing else.
resource "aws_vpc_security_group_ingress_rule" "load_balancer_to_instances" {
  for_each = local.inside

  security_group_id            = aws_security_group.instances.id
  description                  = each.value.port == var.admin_port ? "Health checks of the load balancer" : "SIP by the load balancer"
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.load_balancer[0].id

  lifecycle {
    create_before_destroy = true
  }
}

# Destinations are names that change their addresses, and ports that SRV records choose; the AWS API is asked by HTTPS. Nothing but what
# the edge itself begins leaves by these rules: answers belong to their connections.
resource "aws_vpc_security_group_egress_rule" "instances" {
  for_each = toset(["tcp", "udp"])

  security_group_id = aws_security_group.instances.id
  description       = "SIP to destinations by ${each.key}, the AWS API"
  ip_protocol       = each.key
  from_port         = 1
  to_port           = 65535
  cidr_ipv4         = "0.0.0.0/0"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "load_balancer" {
  #checkov:skip=CKV2_AWS_5:modules/load-balancer attaches it
  count = var.load_balanced ? 1 : 0

  name_prefix = "${var.name}-load-balancer-"
  description = "Load balancer of the SIP edge"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-load-balancer" }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [description]
  }
}

resource "aws_vpc_security_group_ingress_rule" "carriers_to_load_balancer" {
  for_each = local.balancer_rules

  security_group_id = aws_security_group.load_balancer[0].id
  description       = "SIP from ${each.value.names}"
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.range

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "load_balancer_to_instances" {
  for_each = local.inside

  security_group_id            = aws_security_group.load_balancer[0].id
  description                  = each.value.port == var.admin_port ? "Health checks" : "SIP to the instances"
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.instances.id

  lifecycle {
    create_before_destroy = true
  }
}
