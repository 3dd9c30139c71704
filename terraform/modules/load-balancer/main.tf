locals {
  # Names of load balancers and target groups have at most 32 letters: what fits of the long name, and a hash that tells it from others.
  name = "${trimsuffix(substr(var.name, 0, 23), "-")}-${substr(sha256(var.name), 0, 8)}"

  # By port alone: a listener changes its protocol where it is, and turns to a target group of the new protocol.
  listeners = { for listener in var.listeners : tostring(listener.port) => listener }

  # With the protocol and port in the hash: a target group cannot change them, and its successor needs another name.
  target_group_names = {
    for key, listener in local.listeners : key => "${trimsuffix(substr(var.name, 0, 17), "-")}-${substr(sha256("${var.name}/${listener.protocol}-${key}"), 0, 8)}-${key}"
  }

  # A check has to end before the next one begins; the load balancer's own default is 6 s.
  health_check_timeout_s = min(6, var.health_check.interval_s - 1)
}

resource "aws_eip" "ingress" {
  #checkov:skip=CKV2_AWS_19:it belongs to the load balancer's node in its zone
  for_each = var.subnet_ids

  domain = "vpc"

  tags = { Name = "${var.name}-ingress-${each.key}" }
}

resource "aws_lb" "this" {
  #checkov:skip=CKV_AWS_91:access logs of a Network Load Balancer tell of TLS listeners only, and TLS ends on the instances
  #checkov:skip=CKV_AWS_150:`sipedge destroy` and `terraform destroy` ask, and have to be able to do what they are told
  name               = local.name
  load_balancer_type = "network"
  internal           = false

  # Attached now or never: a load balancer that is made without a security group can get none.
  security_groups = var.security_group_ids

  enable_cross_zone_load_balancing = true

  dynamic "subnet_mapping" {
    for_each = var.subnet_ids

    content {
      subnet_id     = subnet_mapping.value
      allocation_id = aws_eip.ingress[subnet_mapping.key].id
    }
  }

  tags = { Name = var.name }
}

resource "aws_lb_target_group" "this" {
  for_each = local.listeners

  name        = local.target_group_names[each.key]
  vpc_id      = var.vpc_id
  target_type = "instance"
  port        = each.value.port
  protocol    = each.value.protocol

  # The proxy admits by source address. UDP cannot be had otherwise.
  preserve_client_ip = true

  # A carrier's flows are never idle, and would stay with an instance that has gone: they end with the delay, and begin anew elsewhere.
  deregistration_delay   = var.deregistration_delay_s
  connection_termination = true

  stickiness {
    type    = "source_ip"
    enabled = var.spreading == "source-ip"
  }

  health_check {
    protocol            = "HTTP"
    port                = tostring(var.health_check.port)
    path                = var.health_check.path
    matcher             = "200"
    interval            = var.health_check.interval_s
    timeout             = local.health_check_timeout_s
    healthy_threshold   = var.health_check.healthy
    unhealthy_threshold = var.health_check.unhealthy
  }

  # An instance that drains says that it is not ready. Its connections may stay until their calls have ended, as UDP flows do.
  dynamic "target_health_state" {
    for_each = each.value.protocol == "TCP" ? [var.deregistration_delay_s] : []

    content {
      enable_unhealthy_connection_termination = false
      unhealthy_draining_interval             = target_health_state.value
    }
  }

  tags = { Name = "${var.name}-${each.key}" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "this" {
  #checkov:skip=CKV_AWS_2:SIP over UDP and TCP; TLS ends on the instances
  #checkov:skip=CKV_AWS_103:TLS ends on the instances, which take 1.2 and 1.3
  for_each = local.listeners

  load_balancer_arn = aws_lb.this.arn
  port              = each.value.port
  protocol          = each.value.protocol

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }

  tags = { Name = "${var.name}-${each.key}" }
}
