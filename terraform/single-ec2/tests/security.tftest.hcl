# modules/security without load balancer

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name           = "sipedge-bridge-single-ec2"
  vpc_id         = "vpc-0123456789abcdef0"
  load_balanced  = false
  listeners      = [{ port = 5060, protocol = "UDP" }, { port = 5061, protocol = "TCP" }]
  carrier_ranges = { twilio = ["54.172.60.0/30"] }
  admin_port     = 8080
}

run "the_instance_admits_sip_from_the_carriers_and_nothing_else" {
  module {
    source = "../modules/security"
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.carriers_to_instances : "${rule.ip_protocol}/${rule.from_port}/${rule.cidr_ipv4}"]) == toset(["udp/5060/54.172.60.0/30", "tcp/5061/54.172.60.0/30"])
    error_message = "One rule for each range and transport."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.load_balancer_to_instances) == 0 && output.load_balancer_id == null
    error_message = "There is no load balancer, and nobody reaches the admin port."
  }
  assert {
    condition     = !anytrue([for rule in aws_vpc_security_group_ingress_rule.carriers_to_instances : rule.from_port <= 22 && rule.to_port >= 22])
    error_message = "There is no SSH."
  }
}
