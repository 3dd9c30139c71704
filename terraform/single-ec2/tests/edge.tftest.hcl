# The edge as a whole: what its outputs say, and what is there only when it is asked for.

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "bridge"
  region             = "us-east-1"
  zones              = ["us-east-1a"]
  public_subnets     = { us-east-1a = "10.0.0.0/24" }
  listeners          = [{ port = 5060, protocol = "TCP_UDP" }]
  carrier_ranges     = { twilio = ["54.172.60.0/30", "54.244.51.0/30"] }
  image_id           = "ami-0123456789abcdef0"
  user_data_template = "tests/user-data.tftpl"
}

run "an_edge_with_the_defaults_stands" {
  assert {
    condition     = output.group_name == "sipedge-bridge-single-ec2" && output.dashboard_name == "sipedge-bridge-single-ec2"
    error_message = "Resources bear sipedge-EDGE-TOPOLOGY."
  }
  assert {
    condition     = output.ingress_addresses == output.egress_addresses && length(output.ingress_addresses) == 1
    error_message = "One address is that of both directions."
  }
  assert {
    condition     = output.capacity == { egress_addresses = 1, ports = 64512, calls = 32256 }
    error_message = "Without NAT gateway the instance has its ports for itself, got ${jsonencode(output.capacity)}."
  }
  assert {
    condition     = output.elastic_ip_allocation_id == "eipalloc-0123456789abcdef0"
    error_message = "The allocation is an output."
  }
  assert {
    condition     = length(output.alarm_names) == 5
    error_message = "There are five alarms, got ${jsonencode(output.alarm_names)}."
  }
  assert {
    condition     = aws_eip.this.domain == "vpc"
    error_message = "The Elastic IP belongs to a VPC."
  }
}

run "the_address_has_its_names" {
  variables {
    listeners = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }]
    dns       = { zone = "example.com.", name = "sip.example.com" }
  }

  assert {
    condition     = toset(output.dns_names) == toset(["sip.example.com", "_sip._tcp.sip.example.com", "_sip._udp.sip.example.com", "_sips._tcp.sip.example.com"])
    error_message = "A name, and one service for each transport, got ${jsonencode(output.dns_names)}."
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
