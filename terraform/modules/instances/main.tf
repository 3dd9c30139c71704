locals {
  # Tags of what the launch template makes; default_tags of the provider do not reach that far.
  tags = merge(var.tags, { Name = var.name })

  # Burstable types only: the others know no credits.
  burstable = startswith(var.instance_type, "t")

  load_balanced = length(var.target_group_arns) > 0

  # Amazon EC2 Auto Scaling begins to count when an instance is in service. A Network Load Balancer takes up to some minutes to
  # register a target, and two checks of 30 s to find it healthy.
  health_check_grace_s = local.load_balanced ? 300 : 60

  # Bytes that a minute brings at so many per second: NetworkIn counts the bytes of a period, and the period is that of detailed
  # monitoring, which the launch template switches on.
  network_in_period_s = 60

  hooks = {
    # The instance completes it when it has placed a call through itself. One that never gets there is terminated.
    ready = {
      transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
      timeout_s  = var.ready_hook_timeout_s
      result     = "ABANDON"
    }
    # The instance completes it when its last call has ended; after the timeout it is terminated either way.
    drain = {
      transition = "autoscaling:EC2_INSTANCE_TERMINATING"
      timeout_s  = var.termination_hook_timeout_s
      result     = "CONTINUE"
    }
  }
}

resource "aws_launch_template" "this" {
  #checkov:skip=CKV_AWS_88:only with public_address, for the topology of one instance whose Elastic IP is the edge's address
  name        = var.name
  description = "Instances of the SIP edge"

  image_id      = var.image_id
  instance_type = var.instance_type
  user_data     = base64encode(var.user_data)
  ebs_optimized = true

  # The group runs numbered versions. The default stays where it is: the newest version may be the one that has just failed its call.
  update_default_version = false

  iam_instance_profile {
    arn = aws_iam_instance_profile.this.arn
  }

  # The template names no key pair: access is by SSM Session Manager alone.

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    http_protocol_ipv6          = "disabled"
    instance_metadata_tags      = "enabled"
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    device_index                = 0
    associate_public_ip_address = var.public_address
    delete_on_termination       = true
    security_groups             = var.security_group_ids

    # A call may ring for a while without a packet; its 200 has to find the way back.
    connection_tracking_specification {
      udp_timeout        = var.udp_timeout_s
      udp_stream_timeout = var.udp_stream_timeout_s
    }
  }

  block_device_mappings {
    device_name = var.root_device_name

    ebs {
      volume_type           = "gp3"
      volume_size           = var.volume_gib
      encrypted             = true
      delete_on_termination = true
    }
  }

  # A type whose credits have run out would be slowed down, and lose calls. Unlimited costs for what is used beyond them.
  dynamic "credit_specification" {
    for_each = local.burstable ? ["unlimited"] : []

    content {
      cpu_credits = credit_specification.value
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = local.tags
    }
  }

  tags = { Name = var.name }

  lifecycle {
    precondition {
      # 16 KB before base64 (Amazon EC2 User Guide, "Run commands at launch"), which makes 4 letters of 3 bytes and = of what is missing:
      # length() alone would count letters, not bytes.
      condition     = length(base64encode(var.user_data)) / 4 * 3 - length(regexall("=", base64encode(var.user_data))) <= 16384
      error_message = "The user data has more than 16,384 bytes, which EC2 does not take."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                = var.name
  min_size            = var.scaling.min
  max_size            = var.scaling.max
  desired_capacity    = var.scaling.min
  vpc_zone_identifier = var.subnet_ids
  target_group_arns   = var.target_group_arns

  health_check_type         = local.load_balanced ? "ELB" : "EC2"
  health_check_grace_period = local.health_check_grace_s
  default_instance_warmup   = var.warmup_s
  termination_policies      = ["OldestLaunchTemplate", "Default"]
  metrics_granularity       = "1Minute"
  enabled_metrics = [
    "GroupDesiredCapacity",
    "GroupInServiceInstances",
    "GroupMaxSize",
    "GroupMinSize",
    "GroupPendingInstances",
    "GroupTerminatingInstances",
    "GroupTotalInstances",
  ]

  # sipedge waits for the instances itself, and says what it waits for; an apply that waits would hang without a word.
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  # Whatever replaces an instance, its health included, launches the new one first.
  instance_maintenance_policy {
    min_healthy_percentage = 100
    max_healthy_percentage = 200
  }

  # The first instances have to find the hooks; aws_autoscaling_lifecycle_hook comes after them, and keeps the timeouts current.
  dynamic "initial_lifecycle_hook" {
    for_each = local.hooks

    content {
      name                 = initial_lifecycle_hook.key
      lifecycle_transition = initial_lifecycle_hook.value.transition
      heartbeat_timeout    = initial_lifecycle_hook.value.timeout_s
      default_result       = initial_lifecycle_hook.value.result
    }
  }

  dynamic "tag" {
    for_each = local.tags

    content {
      key   = tag.key
      value = tag.value
      # The launch template tags the instances.
      propagate_at_launch = false
    }
  }

  # Instances that have been told to leave stay until their calls have ended, or the hook's time is over.
  timeouts {
    delete = "90m"
  }

  lifecycle {
    ignore_changes = [
      # Scaling policies set it.
      desired_capacity,
      # See aws_autoscaling_lifecycle_hook; here a change would replace the group.
      initial_lifecycle_hook,
      # sipedge leads the change to another version, with a call at the first checkpoint and the way back. Terraform would set the version
      # at once, and a refresh that fails would have nothing to go back to.
      launch_template[0].version,
    ]
  }
}

resource "aws_autoscaling_lifecycle_hook" "this" {
  for_each = local.hooks

  autoscaling_group_name = aws_autoscaling_group.this.name
  name                   = each.key
  lifecycle_transition   = each.value.transition
  heartbeat_timeout      = each.value.timeout_s
  default_result         = each.value.result
}

resource "aws_autoscaling_policy" "cpu" {
  count = var.target_tracking == null ? 0 : 1

  name                   = "${var.name}-cpu"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.target_tracking.cpu_percent

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "network_in" {
  count = var.target_tracking == null ? 0 : 1

  name                   = "${var.name}-network-in"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.target_tracking.network_in_bytes * local.network_in_period_s

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageNetworkIn"
    }
  }
}
