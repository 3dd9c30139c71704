# The edge as a whole: what its outputs say, and what is there only when it is asked for.

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

run "an_edge_with_the_defaults_stands" {
  assert {
    condition     = output.group_name == "sipedge-bridge-load-balanced" && output.dashboard_name == "sipedge-bridge-load-balanced"
    error_message = "Resources bear sipedge-EDGE-TOPOLOGY."
  }
  assert {
    condition     = length(output.ingress_addresses) == 3
    error_message = "Each zone has an ingress address: targets in a zone without one would not be used."
  }
  assert {
    condition     = length(output.egress_addresses) == 1
    error_message = "One NAT gateway with one address is the default."
  }
  assert {
    condition     = output.capacity == { egress_addresses = 1, ports = 55000, calls = 27500 }
    error_message = "A NAT gateway has 55,000 ports to one destination for each address, got ${jsonencode(output.capacity)}."
  }
  assert {
    condition     = toset(keys(output.target_group_arns)) == toset(["5060", "5061"])
    error_message = "Each listener has a target group."
  }
  assert {
    condition     = length(output.alarm_names) == 5
    error_message = "There are five alarms, got ${jsonencode(output.alarm_names)}."
  }
  assert {
    condition     = length(output.dns_names) == 0
    error_message = "Without a zone there are no names."
  }
  assert {
    condition     = output.launch_template_version == 1 && output.launch_template_id != ""
    error_message = "The launch template's version is an output: sipedge leads the refresh to it."
  }
}

run "more_egress_addresses_carry_more_calls" {
  variables {
    egress = { gateways = "per-zone", addresses = 2 }
  }

  assert {
    condition     = output.capacity == { egress_addresses = 6, ports = 330000, calls = 165000 }
    error_message = "Three gateways with two addresses each carry six times as much, got ${jsonencode(output.capacity)}."
  }
}

run "without_alarms_there_is_no_topic_and_no_dashboard" {
  variables {
    alarms = null
  }

  assert {
    condition     = length(output.alarm_names) == 0 && output.topic_arn == null && output.dashboard_name == null
    error_message = "alarms = null means none."
  }
}

run "a_small_group_has_no_alarm_that_would_always_be_on" {
  variables {
    scaling = { min = 2, max = 2 }
  }

  assert {
    condition     = !contains(output.alarm_names, "sipedge-bridge-load-balanced-desired-capacity-high")
    error_message = "80 % of two instances is its usual size."
  }
}
