# modules/security

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name           = "sipedge-bridge-load-balanced"
  vpc_id         = "vpc-0123456789abcdef0"
  load_balanced  = true
  listeners      = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }]
  carrier_ranges = { twilio = ["54.172.60.0/30", "54.244.51.0/30"], other = ["54.172.60.0/30"] }
  admin_port     = 8080
}

run "the_load_balancer_admits_sip_from_the_carriers_alone" {
  module {
    source = "../modules/security"
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.carriers_to_load_balancer) == 6
    error_message = "Two ranges over UDP, TCP and TLS are six rules; a range that two carriers share is admitted once."
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.carriers_to_load_balancer : contains([5060, 5061], rule.from_port) && rule.from_port == rule.to_port])
    error_message = "Only the SIP ports are open."
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.carriers_to_load_balancer : rule.cidr_ipv4]) == toset(["54.172.60.0/30", "54.244.51.0/30"])
    error_message = "Only the carriers' ranges are admitted."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.carriers_to_load_balancer["udp-5060-54.172.60.0/30"].description == "SIP from other, twilio"
    error_message = "A rule says whose range it is."
  }
}

run "the_load_balancer_alone_reaches_the_instances" {
  module {
    source = "../modules/security"
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.carriers_to_instances) == 0
    error_message = "No range reaches an instance past the load balancer."
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.load_balancer_to_instances : rule.referenced_security_group_id == output.load_balancer_id && rule.cidr_ipv4 == null])
    error_message = "The rules name the load balancer's group."
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.load_balancer_to_instances : "${rule.ip_protocol}/${rule.from_port}"]) == toset(["udp/5060", "tcp/5060", "tcp/5061", "tcp/8080"])
    error_message = "SIP and the admin port, and nothing else."
  }
}

run "a_group_may_stand_beside_its_successor" {
  command = plan

  module {
    source = "../modules/security"
  }

  assert {
    condition = alltrue([for group in [aws_security_group.instances, aws_security_group.load_balancer[0]] :
      startswith(group.name_prefix, "sipedge-bridge-load-balanced-")
    ])
    error_message = "A fixed name would be in use when the successor comes."
  }
}

run "rules_beyond_the_quota_are_refused_before_aws_refuses_them" {
  command = plan

  module {
    source = "../modules/security"
  }

  variables {
    rules_quota = 5
  }

  expect_failures = [aws_security_group.instances]
}
