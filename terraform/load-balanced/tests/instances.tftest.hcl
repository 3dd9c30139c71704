# modules/instances behind a load balancer

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "sipedge-bridge-load-balanced"
  image_id           = "ami-0123456789abcdef0"
  instance_type      = "t3.small"
  user_data          = "advertise: !host 203.0.113.10"
  subnet_ids         = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_ids = ["sg-0123456789abcdef0"]
  scaling            = { min = 2, max = 10 }
  target_tracking    = { cpu_percent = 70, network_in_bytes = 50000000 }
  target_group_arns  = ["arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/edge/0123456789abcdef"]
  parameter_prefix   = "/sipedge/bridge/load-balanced"
  tags               = { "sipedge:edge" = "bridge", "sipedge:topology" = "load-balanced", team = "voice" }
}

run "an_instance_is_closed_encrypted_and_tagged" {
  module {
    source = "../modules/instances"
  }

  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required" && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "IMDSv2 alone, one hop."
  }
  assert {
    condition     = aws_launch_template.this.metadata_options[0].instance_metadata_tags == "enabled"
    error_message = "An instance reads its tags from the metadata."
  }
  assert {
    condition     = aws_launch_template.this.key_name == null || aws_launch_template.this.key_name == ""
    error_message = "There is no key pair."
  }
  assert {
    condition     = contains(jsondecode(aws_iam_role_policy.this.policy).Statement[*].Sid, "SessionManager")
    error_message = "Access is by Session Manager."
  }
  assert {
    condition     = aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "false"
    error_message = "Behind the load balancer no instance has a public address."
  }
  assert {
    condition     = aws_launch_template.this.network_interfaces[0].connection_tracking_specification[0].udp_timeout == 60 && aws_launch_template.this.network_interfaces[0].connection_tracking_specification[0].udp_stream_timeout == 180
    error_message = "Connection tracking keeps UDP flows as long as EC2 allows."
  }
  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true" && aws_launch_template.this.block_device_mappings[0].ebs[0].volume_type == "gp3"
    error_message = "The root volume is encrypted gp3."
  }
  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].device_name == "/dev/xvda"
    error_message = "It is the image's root device: another name would be a second disk."
  }
  assert {
    condition     = toset(aws_launch_template.this.tag_specifications[*].resource_type) == toset(["instance", "volume", "network-interface"])
    error_message = "The provider's default tags do not reach what a launch template makes."
  }
  assert {
    condition     = alltrue([for made in aws_launch_template.this.tag_specifications : made.tags["sipedge:edge"] == "bridge" && made.tags["team"] == "voice"])
    error_message = "All tags are on all of them."
  }
  assert {
    condition     = length([for tag in aws_autoscaling_group.this.tag : tag if tag.propagate_at_launch]) == 0
    error_message = "Tags come from the launch template."
  }
}

run "the_group_hears_from_its_instances_and_grows_with_their_load" {
  module {
    source = "../modules/instances"
  }

  assert {
    condition     = toset([for hook in aws_autoscaling_group.this.initial_lifecycle_hook : hook.name]) == toset(["ready", "drain"])
    error_message = "The first instances find the hooks."
  }
  assert {
    condition     = aws_autoscaling_lifecycle_hook.this["ready"].default_result == "ABANDON" && aws_autoscaling_lifecycle_hook.this["ready"].heartbeat_timeout == 300
    error_message = "An instance that never gets ready is given up."
  }
  assert {
    condition     = aws_autoscaling_lifecycle_hook.this["drain"].default_result == "CONTINUE" && aws_autoscaling_lifecycle_hook.this["drain"].heartbeat_timeout == 1020
    error_message = "An instance drains for as long as the flows may come."
  }
  assert {
    condition     = aws_autoscaling_policy.cpu[0].target_tracking_configuration[0].target_value == 70
    error_message = "CPU is kept at 70 %."
  }
  assert {
    condition     = aws_autoscaling_policy.network_in[0].target_tracking_configuration[0].target_value == 3000000000
    error_message = "50 MB/s are 3 GB in a minute, which is the metric's period."
  }
  assert {
    condition     = aws_launch_template.this.monitoring[0].enabled
    error_message = "The metric's period is a minute only with detailed monitoring."
  }
  assert {
    condition     = aws_autoscaling_group.this.health_check_type == "ELB"
    error_message = "Who does not answer the load balancer is replaced."
  }
  assert {
    condition     = aws_autoscaling_group.this.timeouts.delete == "90m"
    error_message = "Instances that drain keep the group for as long as their hook."
  }
  assert {
    condition     = aws_autoscaling_group.this.wait_for_capacity_timeout == "0"
    error_message = "An apply does not wait for instances."
  }
}

run "an_instance_may_read_its_own_secrets_and_end_its_own_hooks" {
  module {
    source = "../modules/instances"
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "Secrets"]) == [
      "arn:aws:ssm:us-east-1:123456789012:parameter/sipedge/bridge/load-balanced",
      "arn:aws:ssm:us-east-1:123456789012:parameter/sipedge/bridge/load-balanced/*",
    ]
    error_message = "Only the parameters of this edge and topology."
  }
  assert {
    condition     = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Resource if statement.Sid == "LifecycleHooks"]) == "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:*:autoScalingGroupName/sipedge-bridge-load-balanced"
    error_message = "Only this group's lifecycle actions."
  }
  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Action if statement.Sid == "LifecycleHooks"]) == [
      "autoscaling:CompleteLifecycleAction",
      "autoscaling:RecordLifecycleActionHeartbeat",
    ]
    error_message = "An instance completes its lifecycle actions, and keeps the group waiting while it drains."
  }
  assert {
    condition     = length([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement if strcontains(jsonencode(statement.Action), "AssociateAddress")]) == 0
    error_message = "Behind the load balancer no instance may move an address."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : !strcontains(jsonencode(statement.Action), "*")])
    error_message = "Each action is named."
  }
}

run "user_data_beyond_16_kib_is_refused" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    user_data = format("%-16385s", "x")
  }

  expect_failures = [aws_launch_template.this]
}

run "user_data_of_16_kib_is_taken" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    user_data = format("%-16384s", "x")
  }

  assert {
    condition     = length(base64decode(aws_launch_template.this.user_data)) == 16384
    error_message = "It reaches the launch template as it is."
  }
}

run "a_type_without_credits_has_no_credit_specification" {
  command = plan

  module {
    source = "../modules/instances"
  }

  variables {
    instance_type = "c7i.large"
  }

  assert {
    condition     = length(aws_launch_template.this.credit_specification) == 0
    error_message = "EC2 refuses credits for types that know none."
  }
}
