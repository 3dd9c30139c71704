# modules/load-balancer

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "sipedge-a-name-of-thirty-two-characters-load-balanced"
  vpc_id             = "vpc-0123456789abcdef0"
  subnet_ids         = { us-east-1a = "subnet-a", us-east-1b = "subnet-b", us-east-1c = "subnet-c" }
  security_group_ids = ["sg-0123456789abcdef0"]
  listeners          = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }, { port = 5062, protocol = "UDP" }]
  health_check       = { port = 8080 }
}

run "each_zone_has_a_node_with_its_own_address" {
  module {
    source = "../modules/load-balancer"
  }

  assert {
    condition     = length(aws_lb.this.subnet_mapping) == 3 && length(aws_eip.ingress) == 3
    error_message = "A zone without a node has targets that are not used."
  }
  assert {
    condition     = aws_lb.this.enable_cross_zone_load_balancing && aws_lb.this.load_balancer_type == "network" && !aws_lb.this.internal
    error_message = "It is a cross-zone network load balancer on the Internet."
  }
  assert {
    condition     = length(aws_lb.this.security_groups) == 1
    error_message = "The security group is attached when it is made, or never."
  }
  assert {
    condition     = alltrue([for name in concat([aws_lb.this.name], [for group in aws_lb_target_group.this : group.name]) : length(name) <= 32 && can(regex("^[a-z0-9][a-z0-9-]*[a-z0-9]$", name))])
    error_message = "Names have at most 32 letters, and no hyphen at their ends."
  }
  assert {
    condition     = length(distinct([for group in aws_lb_target_group.this : group.name])) == 3
    error_message = "Each target group has a name of its own."
  }
}

run "each_listener_has_a_target_group_of_its_protocol_and_port" {
  module {
    source = "../modules/load-balancer"
  }

  assert {
    condition = alltrue([for key, listener in aws_lb_listener.this :
      listener.protocol == aws_lb_target_group.this[key].protocol && listener.port == aws_lb_target_group.this[key].port
    ])
    error_message = "A TCP_UDP listener needs a TCP_UDP target group."
  }
  assert {
    condition     = toset(keys(aws_lb_listener.this)) == toset(["5060", "5061", "5062"])
    error_message = "There are the listeners that were asked for, and no others."
  }
}

run "instances_are_asked_by_http_whether_they_are_ready" {
  command = plan

  module {
    source = "../modules/load-balancer"
  }

  assert {
    condition = alltrue([for group in aws_lb_target_group.this :
      group.health_check[0].protocol == "HTTP" && group.health_check[0].port == "8080" && group.health_check[0].path == "/readyz" && group.health_check[0].matcher == "200"
    ])
    error_message = "Health checks go to /readyz on the admin port."
  }
  assert {
    condition = alltrue([for group in aws_lb_target_group.this :
      group.health_check[0].interval == 30 && group.health_check[0].healthy_threshold == 2 && group.health_check[0].unhealthy_threshold == 2
    ])
    error_message = "Every 30 s, two answers change the state."
  }
}

run "a_source_address_stays_with_its_instance" {
  command = plan

  module {
    source = "../modules/load-balancer"
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.stickiness[0].enabled && group.stickiness[0].type == "source_ip"])
    error_message = "source-ip is source_ip stickiness."
  }
  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.preserve_client_ip == "true"])
    error_message = "The proxy admits by source address."
  }
}

run "flows_are_spread_one_by_one_when_that_is_asked_for" {
  command = plan

  module {
    source = "../modules/load-balancer"
  }

  variables {
    spreading = "five-tuple"
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : !group.stickiness[0].enabled])
    error_message = "five-tuple has no stickiness."
  }
}

run "an_instance_that_leaves_keeps_its_flows_until_the_delay_is_over" {
  command = plan

  module {
    source = "../modules/load-balancer"
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.deregistration_delay == "180" && group.connection_termination])
    error_message = "Busy flows would stay with an instance for ever."
  }
  assert {
    condition     = aws_lb_target_group.this["5061"].target_health_state[0].enable_unhealthy_connection_termination == false
    error_message = "A connection over TLS may not be cut when its instance begins to drain."
  }
}

# The names of the target groups that the next two runs compare.
run "a_listener_over_udp_and_tcp" {
  module {
    source = "../modules/load-balancer"
  }

  variables {
    listeners = [{ port = 5060, protocol = "TCP_UDP" }]
  }

  assert {
    condition     = aws_lb_listener.this["5060"].protocol == "TCP_UDP"
    error_message = "It takes both."
  }
}

run "changes_its_protocol_where_it_is" {
  module {
    source = "../modules/load-balancer"
  }

  variables {
    listeners = [{ port = 5060, protocol = "UDP" }]
  }

  assert {
    condition     = aws_lb_listener.this["5060"].protocol == "UDP" && aws_lb_listener.this["5060"].id == run.a_listener_over_udp_and_tcp.listener_ids["5060"]
    error_message = "A listener that is made anew takes nothing meanwhile, and its port is in use when its successor comes."
  }
  assert {
    condition     = aws_lb_target_group.this["5060"].name != run.a_listener_over_udp_and_tcp.target_group_names["5060"]
    error_message = "The successor of a target group stands beside it: it needs another name."
  }
}
