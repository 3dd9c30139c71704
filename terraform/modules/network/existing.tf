# A VPC that exists is taken as it is: nothing is made in it. What the edge rests on is looked up and checked before anything else is made.

locals {
  existing_public  = local.made ? {} : { for zone in var.zones : zone => var.existing_vpc.public_subnet_ids[zone] }
  existing_private = local.made || !var.private ? {} : { for zone in var.zones : zone => var.existing_vpc.private_subnet_ids[zone] }
  existing_subnets = merge(
    { for zone, id in local.existing_public : "public-${zone}" => { id = id, zone = zone } },
    { for zone, id in local.existing_private : "private-${zone}" => { id = id, zone = zone } },
  )

  # NAT gateways behind the default routes of the private subnets, and those of their addresses that are not the first.
  existing_gateway_ids = toset(flatten([
    for table in values(data.aws_route_table.private) : [
      for route in table.routes : route.nat_gateway_id if route.cidr_block == "0.0.0.0/0" && route.nat_gateway_id != ""
    ]
  ]))
  existing_secondary_ids = toset(flatten([for gateway in values(data.aws_nat_gateway.existing) : gateway.secondary_allocation_ids]))
}

data "aws_subnet" "existing" {
  for_each = local.existing_subnets

  id = each.value.id

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.existing_vpc.id
      error_message = "Subnet ${self.id} is in VPC ${self.vpc_id}, not in ${var.existing_vpc.id}."
    }
    postcondition {
      condition     = self.availability_zone == each.value.zone
      error_message = "Subnet ${self.id} is in zone ${self.availability_zone}, not in ${each.value.zone}, under which existing_vpc names it."
    }
  }
}

# A subnet without a table of its own uses the VPC's main one.
data "aws_route_tables" "main" {
  count = local.made ? 0 : 1

  vpc_id = var.existing_vpc.id

  filter {
    name   = "association.main"
    values = ["true"]
  }
}

data "aws_route_tables" "own" {
  for_each = local.existing_subnets

  vpc_id = var.existing_vpc.id

  filter {
    name   = "association.subnet-id"
    values = [each.value.id]
  }
}

data "aws_route_table" "public" {
  for_each = local.existing_public

  route_table_id = concat(data.aws_route_tables.own["public-${each.key}"].ids, data.aws_route_tables.main[0].ids)[0]

  lifecycle {
    postcondition {
      condition     = anytrue([for route in self.routes : route.cidr_block == "0.0.0.0/0" && startswith(route.gateway_id, "igw-")])
      error_message = "Subnet ${each.value} has no default route to an Internet gateway (route table ${self.id}): the edge's address would not be reached. Name a public subnet, or add the route."
    }
  }
}

data "aws_route_table" "private" {
  for_each = local.existing_private

  route_table_id = concat(data.aws_route_tables.own["private-${each.key}"].ids, data.aws_route_tables.main[0].ids)[0]

  lifecycle {
    postcondition {
      condition     = anytrue([for route in self.routes : route.cidr_block == "0.0.0.0/0" && startswith(route.nat_gateway_id, "nat-")])
      error_message = "Subnet ${each.value} has no default route to a NAT gateway (route table ${self.id}): calls leave by its address, which the carriers admit. Name another subnet, or add the route."
    }
  }
}

data "aws_nat_gateway" "existing" {
  for_each = local.existing_gateway_ids

  id = each.key
}

data "aws_eip" "existing_egress" {
  for_each = local.existing_secondary_ids

  id = each.key
}
