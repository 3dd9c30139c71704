# What would fail in the middle of an apply, or would lose calls, is refused before anything is made. Every variable that a run names has to be
# refused, and no other.

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "bridge"
  region             = "us-east-1"
  zones              = ["us-east-1a", "us-east-1b", "us-east-1c"]
  public_subnets     = { us-east-1a = "10.0.0.0/24", us-east-1b = "10.0.1.0/24", us-east-1c = "10.0.2.0/24" }
  private_subnets    = { us-east-1a = "10.0.16.0/20", us-east-1b = "10.0.32.0/20", us-east-1c = "10.0.48.0/20" }
  listeners          = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }]
  carrier_ranges     = { twilio = ["54.172.60.0/30", "54.244.51.0/30"] }
  image_id           = "ami-0123456789abcdef0"
  user_data_template = "tests/user-data.tftpl"
}

run "what_aws_names_otherwise_is_refused" {
  command = plan

  variables {
    name          = "Bridge"
    image_id      = ""
    instance_type = "t3"
    # an instance whose metadata has such a tag is not launched
    tags                 = { "cost/centre" = "1" }
    udp_timeout_s        = 61
    udp_stream_timeout_s = 181
    ready_hook_timeout_s = 20
    volume_gib           = 0
    warmup_s             = -1
  }

  expect_failures = [
    var.name,
    var.image_id,
    var.instance_type,
    var.tags,
    var.udp_timeout_s,
    var.udp_stream_timeout_s,
    var.ready_hook_timeout_s,
    var.volume_gib,
    var.warmup_s,
  ]
}

run "sip_open_to_the_world_is_refused" {
  command = plan

  variables {
    carrier_ranges = { anybody = ["0.0.0.0/0"] }
  }

  expect_failures = [
    var.carrier_ranges,
  ]
}

run "a_range_with_bits_behind_the_prefix_is_refused" {
  command = plan

  variables {
    carrier_ranges = { carrier = ["54.172.60.1/30"] }
  }

  expect_failures = [
    var.carrier_ranges,
  ]
}

run "no_carrier_at_all_is_refused" {
  command = plan

  variables {
    carrier_ranges = {}
  }

  expect_failures = [
    var.carrier_ranges,
  ]
}

run "ports_that_carriers_and_health_checks_share_are_refused" {
  command = plan

  variables {
    admin_port = 5060
  }

  expect_failures = [
    var.admin_port,
  ]
}

run "two_listeners_on_one_port_are_refused" {
  command = plan

  variables {
    # AWS: one TCP_UDP listener
    listeners = [{ port = 5060, protocol = "UDP" }, { port = 5060, protocol = "TCP" }]
  }

  expect_failures = [
    var.listeners,
  ]
}

run "a_listener_of_an_unknown_protocol_is_refused" {
  command = plan

  variables {
    listeners = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TLS" }]
  }

  expect_failures = [
    var.listeners,
  ]
}

run "listeners_without_udp_on_the_ingress_port_are_refused" {
  command = plan

  variables {
    listeners = [{ port = 5062, protocol = "TCP_UDP" }]
  }

  expect_failures = [
    var.listeners,
  ]
}

run "what_leads_nowhere_or_too_far_is_refused" {
  command = plan

  variables {
    user_data_template = "tests/nowhere.tftpl"
    # every parameter of the account
    parameter_prefix = "/"
    alarms           = { notify = [{ protocol = "sms", endpoint = "+15551234567" }] }
    dns              = { zone = "example.com.", name = "sip.example.org" }
  }

  expect_failures = [
    var.user_data_template,
    var.parameter_prefix,
    var.alarms,
    var.dns,
  ]
}

run "a_zone_of_another_region_is_refused" {
  command = plan

  variables {
    zones = ["us-west-2a"]
    # fits the zone
    public_subnets  = { us-west-2a = "10.0.0.0/24" }
    private_subnets = { us-west-2a = "10.0.16.0/20" }
  }

  expect_failures = [
    var.zones,
  ]
}

run "a_group_that_is_no_group_is_refused" {
  command = plan

  variables {
    # max below min
    scaling = { min = 3, max = 2 }
    # never reached
    target_tracking = { cpu_percent = 100 }
    spreading       = "round-robin"
  }

  expect_failures = [
    var.scaling,
    var.target_tracking,
    var.spreading,
  ]
}

run "an_empty_group_is_refused" {
  command = plan

  variables {
    scaling = { min = 0, max = 10 }
  }

  expect_failures = [
    var.scaling,
  ]
}

run "zones_without_subnets_are_refused" {
  command = plan

  variables {
    public_subnets  = { us-east-1a = "10.0.0.0/24" }
    private_subnets = { us-east-1a = "10.0.16.0/20" }
  }

  expect_failures = [
    var.public_subnets,
    var.private_subnets,
  ]
}

run "a_zone_that_is_named_twice_is_refused" {
  command = plan

  variables {
    zones = ["us-east-1a", "us-east-1a"]
  }

  expect_failures = [
    var.zones,
  ]
}

run "more_addresses_than_a_nat_gateway_takes_are_refused" {
  command = plan

  variables {
    egress = { addresses = 9 }
  }

  expect_failures = [
    var.egress,
  ]
}

run "an_egress_port_that_is_a_listener_s_is_refused" {
  command = plan

  variables {
    # flows of load balancer and NAT gateway to one peer would be mixed up
    egress_port = 5060
  }

  expect_failures = [
    var.egress_port,
  ]
}

run "a_health_check_that_asks_elsewhere_is_refused" {
  command = plan

  variables {
    health_check = { port = 5060 }
  }

  expect_failures = [
    var.health_check,
  ]
}

run "a_health_check_more_often_than_the_load_balancer_asks_is_refused" {
  command = plan

  variables {
    health_check = { interval_s = 1 }
  }

  expect_failures = [
    var.health_check,
  ]
}

run "a_drain_that_ends_before_the_flows_do_is_refused" {
  command = plan

  variables {
    # as long as the deregistration delay, without its margin
    termination_hook_timeout_s = 240
  }

  expect_failures = [
    var.termination_hook_timeout_s,
  ]
}

run "an_alarm_above_the_largest_group_is_refused" {
  command = plan

  variables {
    alarms = { desired = 11 }
  }

  expect_failures = [
    var.alarms,
  ]
}

run "an_existing_vpc_without_private_subnets_is_refused" {
  command = plan

  variables {
    existing_vpc = { id = "vpc-0123456789abcdef0", public_subnet_ids = { us-east-1a = "subnet-a", us-east-1b = "subnet-b", us-east-1c = "subnet-c" } }
  }

  expect_failures = [
    var.existing_vpc,
  ]
}

run "sip_open_to_the_world_is_taken_when_that_is_said" {
  command = plan

  variables {
    carrier_ranges    = { anybody = ["0.0.0.0/0"] }
    open_to_the_world = true
  }
}
