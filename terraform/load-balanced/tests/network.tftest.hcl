# modules/network

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name            = "sipedge-bridge-load-balanced"
  vpc_cidr        = "10.0.0.0/16"
  zones           = ["us-east-1a", "us-east-1b"]
  public_subnets  = { us-east-1a = "10.0.0.0/24", us-east-1b = "10.0.1.0/24" }
  private         = true
  private_subnets = { us-east-1a = "10.0.16.0/20", us-east-1b = "10.0.32.0/20" }
}

run "one_nat_gateway_serves_all_zones" {
  module {
    source = "../modules/network"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_eip.egress) == 1
    error_message = "One gateway with one address is the default."
  }
  assert {
    condition     = alltrue([for route in aws_route.private : route.nat_gateway_id == aws_nat_gateway.this["one"].id])
    error_message = "Every private subnet leaves by it."
  }
  assert {
    condition     = aws_route.public[0].gateway_id == aws_internet_gateway.this[0].id
    error_message = "Public subnets leave by the Internet gateway."
  }
  assert {
    condition     = !anytrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : coalesce(subnet.map_public_ip_on_launch, false)])
    error_message = "No subnet hands out public addresses."
  }
}

run "the_only_gateway_keeps_its_address_when_the_first_zone_goes" {
  module {
    source = "../modules/network"
  }

  variables {
    zones = ["us-east-1b"]
  }

  assert {
    condition     = keys(aws_eip.egress) == ["one-1"] && keys(aws_nat_gateway.this) == ["one"]
    error_message = "Gateway and address may not be named for the zone: another name is another address, which carriers do not admit."
  }
  assert {
    condition     = aws_nat_gateway.this["one"].subnet_id == aws_subnet.public["us-east-1b"].id
    error_message = "It moves to the first zone that is left."
  }
  assert {
    condition     = aws_eip.egress["one-1"].id == run.one_nat_gateway_serves_all_zones.egress_allocation_ids[0]
    error_message = "The address is the same."
  }
}

run "what_is_in_a_subnet_has_time_to_leave" {
  command = plan

  module {
    source = "../modules/network"
  }

  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.private), values(aws_subnet.public)) : subnet.timeouts.delete == "90m"])
    error_message = "An instance may drain for over an hour."
  }
  assert {
    condition     = aws_nat_gateway.this["one"].timeouts.update == "20m"
    error_message = "An address that goes is kept for its connections."
  }
}

run "a_nat_gateway_in_each_zone_has_all_its_addresses" {
  module {
    source = "../modules/network"
  }

  variables {
    egress = { gateways = "per-zone", addresses = 3 }
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2 && length(aws_eip.egress) == 6 && length(output.egress_addresses) == 6
    error_message = "Two gateways with three addresses each."
  }
  assert {
    condition     = alltrue([for zone, gateway in aws_nat_gateway.this : length(gateway.secondary_allocation_ids) == 2])
    error_message = "The first address is the gateway's own, the others are its secondary ones."
  }
  assert {
    condition     = alltrue([for zone, route in aws_route.private : route.nat_gateway_id == aws_nat_gateway.this[zone].id])
    error_message = "A private subnet leaves by the gateway of its zone."
  }
}

run "a_subnet_outside_the_vpc_is_refused" {
  command = plan

  module {
    source = "../modules/network"
  }

  variables {
    private_subnets = { us-east-1a = "10.1.16.0/20", us-east-1b = "10.0.32.0/20" }
  }

  expect_failures = [var.private_subnets]
}

run "an_existing_vpc_is_taken_as_it_is" {
  command = apply

  module {
    source = "../modules/network"
  }

  variables {
    zones = ["us-east-1a"]
    existing_vpc = {
      id                 = "vpc-0123456789abcdef0"
      public_subnet_ids  = { us-east-1a = "subnet-0a" }
      private_subnet_ids = { us-east-1a = "subnet-0b" }
    }
  }

  override_data {
    target = data.aws_subnet.existing
    values = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "us-east-1a" }
  }
  override_data {
    target = data.aws_route_tables.main
    values = { ids = ["rtb-0a"] }
  }
  override_data {
    target = data.aws_route_tables.own
    values = { ids = [] }
  }
  override_data {
    target = data.aws_route_table.public
    values = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "igw-0a", nat_gateway_id = "" }] }
  }
  override_data {
    target = data.aws_route_table.private
    values = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "", nat_gateway_id = "nat-0a" }] }
  }
  override_data {
    target = data.aws_nat_gateway.existing
    values = { public_ip = "203.0.113.20", secondary_allocation_ids = ["eipalloc-0a"] }
  }
  override_data {
    target = data.aws_eip.existing_egress
    values = { public_ip = "203.0.113.21" }
  }

  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.public) + length(aws_subnet.private) + length(aws_nat_gateway.this) + length(aws_route.private) == 0
    error_message = "Nothing is made in a VPC that exists."
  }
  assert {
    condition     = output.public_subnet_ids == tomap({ us-east-1a = "subnet-0a" }) && output.private_subnet_ids == tomap({ us-east-1a = "subnet-0b" })
    error_message = "Its subnets are used."
  }
  assert {
    condition     = output.egress_addresses == tolist(["203.0.113.20", "203.0.113.21"])
    error_message = "The addresses of its NAT gateway are those that carriers admit, got ${jsonencode(output.egress_addresses)}."
  }
}

run "an_existing_private_subnet_without_nat_gateway_is_refused" {
  command = plan

  module {
    source = "../modules/network"
  }

  variables {
    zones = ["us-east-1a"]
    existing_vpc = {
      id                 = "vpc-0123456789abcdef0"
      public_subnet_ids  = { us-east-1a = "subnet-0a" }
      private_subnet_ids = { us-east-1a = "subnet-0b" }
    }
  }

  override_data {
    target = data.aws_subnet.existing
    values = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "us-east-1a" }
  }
  override_data {
    target = data.aws_route_tables.main
    values = { ids = ["rtb-0a"] }
  }
  override_data {
    target = data.aws_route_tables.own
    values = { ids = [] }
  }
  override_data {
    target = data.aws_route_table.public
    values = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "igw-0a", nat_gateway_id = "" }] }
  }
  override_data {
    target = data.aws_route_table.private
    values = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "igw-0a", nat_gateway_id = "" }] }
  }

  expect_failures = [data.aws_route_table.private]
}
