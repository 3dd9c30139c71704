locals {
  made = var.existing_vpc == null

  public_subnets  = local.made ? { for zone in var.zones : zone => var.public_subnets[zone] } : {}
  private_subnets = local.made && var.private ? { for zone in var.zones : zone => var.private_subnets[zone] } : {}

  # NAT gateways by key, each with the zone that it is in, and the keys of their addresses: KEY-1 is the gateway's first, the others are its
  # secondary ones. The only gateway is `one`, whatever its zone: it may move to another zone, and its addresses move with it.
  gateway_keys  = length(local.private_subnets) == 0 ? [] : var.egress.gateways == "one" ? ["one"] : var.zones
  gateway_zones = { for key in local.gateway_keys : key => key == "one" ? var.zones[0] : key }
  egress_keys   = flatten([for key in local.gateway_keys : [for n in range(var.egress.addresses) : "${key}-${n + 1}"]])
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:flow logs cost by the gigabyte and say less about calls than the edge's own metrics and records do
  count = local.made ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# Every VPC comes with this group. Nothing uses it; without rules nothing can by mistake.
resource "aws_default_security_group" "this" {
  count = local.made ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-unused" }
}

resource "aws_internet_gateway" "this" {
  count = local.made ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = local.public_subnets

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = each.value

  # Who needs a public address has it from its launch template or an Elastic IP.
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-public-${each.key}" }

  # What is in it leaves first: an instance that drains, for as long as its calls last.
  timeouts {
    delete = "90m"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route_table" "public" {
  count = local.made ? 1 : 0

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  count = local.made ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = local.public_subnets

  route_table_id = aws_route_table.public[0].id
  subnet_id      = aws_subnet.public[each.key].id
}

resource "aws_subnet" "private" {
  for_each = local.private_subnets

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = each.value

  tags = { Name = "${var.name}-private-${each.key}" }

  timeouts {
    delete = "90m"
  }

  # The group and the load balancer turn to the subnets that stay before one goes.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_eip" "egress" {
  #checkov:skip=CKV2_AWS_19:it belongs to the NAT gateway below
  for_each = toset(local.egress_keys)

  domain = "vpc"

  tags = { Name = "${var.name}-egress-${each.key}" }

  # A gateway lets an address go before it is released.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_nat_gateway" "this" {
  for_each = local.gateway_zones

  subnet_id                = aws_subnet.public[each.value].id
  allocation_id            = aws_eip.egress["${each.key}-1"].id
  secondary_allocation_ids = var.egress.addresses == 1 ? null : [for n in range(1, var.egress.addresses) : aws_eip.egress["${each.key}-${n + 1}"].id]

  tags = { Name = "${var.name}-${each.key}" }

  # An address that goes is kept until its connections have ended, or AWS has waited long enough for them.
  timeouts {
    update = "20m"
  }

  # A public NAT gateway cannot be made before its VPC is connected.
  depends_on = [aws_internet_gateway.this, aws_route.public]
}

# One table for each zone, whatever the number of gateways: another number changes routes, not tables.
resource "aws_route_table" "private" {
  for_each = local.private_subnets

  vpc_id = aws_vpc.this[0].id

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "private" {
  for_each = local.private_subnets

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[var.egress.gateways == "one" ? "one" : each.key].id
}

resource "aws_route_table_association" "private" {
  for_each = local.private_subnets

  route_table_id = aws_route_table.private[each.key].id
  subnet_id      = aws_subnet.private[each.key].id
}
