# modules/instances with one instance that has the edge's address

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "sipedge-bridge-single-ec2"
  image_id           = "ami-0123456789abcdef0"
  instance_type      = "t3.small"
  user_data          = "advertise: !host 203.0.113.10"
  subnet_ids         = ["subnet-a"]
  security_group_ids = ["sg-0123456789abcdef0"]
  public_address     = true
  elastic_ip         = { allocation_id = "eipalloc-0123456789abcdef0" }
  scaling            = { min = 1, max = 1 }
  parameter_prefix   = "/sipedge/bridge/single-ec2"
  tags               = { "sipedge:edge" = "bridge", "sipedge:topology" = "single-ec2" }
}

run "one_instance_heals_and_is_not_scaled" {
  module {
    source = "../modules/instances"
  }

  assert {
    condition     = aws_autoscaling_group.this.min_size == 1 && aws_autoscaling_group.this.max_size == 1
    error_message = "It is a group of one."
  }
  assert {
    condition     = length(aws_autoscaling_policy.cpu) + length(aws_autoscaling_policy.network_in) == 0
    error_message = "Nothing scales it."
  }
  assert {
    condition     = aws_autoscaling_group.this.health_check_type == "EC2"
    error_message = "There is no load balancer whose checks would count."
  }
  assert {
    condition     = aws_autoscaling_group.this.instance_maintenance_policy[0].min_healthy_percentage == 100 && aws_autoscaling_group.this.instance_maintenance_policy[0].max_healthy_percentage == 200
    error_message = "The new instance is there before the old one goes."
  }
  assert {
    condition     = aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "true"
    error_message = "It has a way out before the Elastic IP is its own."
  }
}

run "it_may_take_this_address_and_no_other_to_instances_of_this_edge_and_no_others" {
  module {
    source = "../modules/instances"
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action if statement.Sid == "LifecycleHooks"]) == [
      "autoscaling:CompleteLifecycleAction",
      "autoscaling:RecordLifecycleActionHeartbeat",
    ]
    error_message = "An instance completes its lifecycle actions, and keeps the group waiting while it drains."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "ElasticIp"]) == "arn:aws:ec2:us-east-1:123456789012:elastic-ip/eipalloc-0123456789abcdef0"
    error_message = "One allocation."
  }
  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if statement.Sid == "ElasticIpToThisEdge"]) == {
      StringEquals = { "aws:ResourceTag/sipedge:edge" = "bridge", "aws:ResourceTag/sipedge:topology" = "single-ec2" }
    }
    error_message = "Only instances with this edge's tags."
  }
}

run "the_root_device_is_named_and_not_looked_up" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    root_device_name = "/dev/sda1"
  }

  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].device_name == "/dev/sda1"
    error_message = "Another name than the image's would be a second disk."
  }
}

run "a_device_that_is_none_is_refused" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    root_device_name = "xvda"
  }

  expect_failures = [var.root_device_name]
}

run "an_address_for_several_instances_is_refused" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    scaling = { min = 1, max = 2 }
  }

  expect_failures = [var.elastic_ip]
}
