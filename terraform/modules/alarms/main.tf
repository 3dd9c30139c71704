locals {
  topic_name = "${var.name}-alarms"

  group     = { AutoScalingGroupName = var.group_name }
  balancers = var.load_balancer == null ? [] : [for suffix in var.load_balancer.target_groups : { LoadBalancer = var.load_balancer.arn_suffix, TargetGroup = suffix }]

  # An alarm goes off when `datapoints` of the last `periods`, each of so many seconds, are beyond the threshold. What several listeners report is taken
  # together by `reduce`.
  balanced = {
    unhealthy-hosts = {
      description = "An instance does not answer its health checks with 200."
      namespace   = "AWS/NetworkELB", metric = "UnHealthyHostCount", dimensions = local.balancers, statistic = "Maximum", reduce = "MAX"
      comparison  = "GreaterThanThreshold", threshold = 0, period = 60, periods = 5, datapoints = 3, missing = "notBreaching"
    }
    # A group that may have one instance is there most of the time.
    few-healthy-hosts = var.min < 2 ? null : {
      description = "Fewer than two instances are healthy: the loss of one more would end all calls."
      namespace   = "AWS/NetworkELB", metric = "HealthyHostCount", dimensions = local.balancers, statistic = "Minimum", reduce = "MIN"
      comparison  = "LessThanThreshold", threshold = 2, period = 60, periods = 5, datapoints = 5, missing = "notBreaching"
    }
    no-healthy-hosts = {
      description = "CRITICAL: no instance is healthy. No call gets through."
      namespace   = "AWS/NetworkELB", metric = "HealthyHostCount", dimensions = local.balancers, statistic = "Maximum", reduce = "MIN"
      # Without any target there is no figure either.
      comparison = "LessThanThreshold", threshold = 1, period = 60, periods = 3, datapoints = 3, missing = "breaching"
    }
    cpu-high = {
      description = "The instances are busier than ${var.cpu_percent} % on average, although the group scales on less."
      namespace   = "AWS/EC2", metric = "CPUUtilization", dimensions = [local.group], statistic = "Average", reduce = "MAX"
      comparison  = "GreaterThanThreshold", threshold = var.cpu_percent, period = 60, periods = 5, datapoints = 5, missing = "notBreaching"
    }
    desired-capacity-high = var.desired == null ? null : {
      description = "The group wants ${var.desired} instances or more: it can hardly grow. Raise scaling.max, or find out who calls."
      namespace   = "AWS/AutoScaling", metric = "GroupDesiredCapacity", dimensions = [local.group], statistic = "Maximum", reduce = "MAX"
      comparison  = "GreaterThanOrEqualToThreshold", threshold = var.desired, period = 60, periods = 5, datapoints = 5, missing = "notBreaching"
    }
  }
  single = {
    unhealthy-instance = {
      description = "EC2's status check of the instance fails."
      namespace   = "AWS/EC2", metric = "StatusCheckFailed", dimensions = [local.group], statistic = "Maximum", reduce = "MAX"
      comparison  = "GreaterThanThreshold", threshold = 0, period = 60, periods = 3, datapoints = 2, missing = "notBreaching"
    }
    instance-not-ready = {
      description = "A new instance has not placed a call through itself for ten minutes, or one after the other is given up."
      namespace   = "AWS/AutoScaling", metric = "GroupPendingInstances", dimensions = [local.group], statistic = "Minimum", reduce = "MAX"
      comparison  = "GreaterThanThreshold", threshold = 0, period = 60, periods = 10, datapoints = 9, missing = "notBreaching"
    }
    no-instance = {
      description = "CRITICAL: no instance is in service. No call gets through."
      namespace   = "AWS/AutoScaling", metric = "GroupInServiceInstances", dimensions = [local.group], statistic = "Maximum", reduce = "MAX"
      comparison  = "LessThanThreshold", threshold = 1, period = 60, periods = 3, datapoints = 3, missing = "breaching"
    }
    cpu-high = {
      description = "The instance is busier than ${var.cpu_percent} %. Take a larger type, or the topology load-balanced."
      namespace   = "AWS/EC2", metric = "CPUUtilization", dimensions = [local.group], statistic = "Average", reduce = "MAX"
      comparison  = "GreaterThanThreshold", threshold = var.cpu_percent, period = 60, periods = 5, datapoints = 5, missing = "notBreaching"
    }
    cpu-credits-charged = {
      description = "The instance uses more CPU than its type has credits for, and AWS charges for it: the type is too small. Types without credits never report this."
      namespace   = "AWS/EC2", metric = "CPUSurplusCreditsCharged", dimensions = [local.group], statistic = "Maximum", reduce = "MAX"
      # Credits are told every five minutes, detailed monitoring or not.
      comparison = "GreaterThanThreshold", threshold = 0, period = 300, periods = 3, datapoints = 3, missing = "notBreaching"
    }
  }

  # Both have their entries of the same shape; a conditional expression would not take maps of different keys.
  alarms = { for key, alarm in merge(
    { for key, alarm in local.balanced : key => alarm if var.load_balancer != null },
    { for key, alarm in local.single : key => alarm if var.load_balancer == null },
  ) : key => alarm if alarm != null }

  # What says nothing of the version that the instances run.
  of_any_version = ["cpu-credits-charged", "desired-capacity-high"]

  alarm_arns = "arn:${data.aws_partition.this.partition}:cloudwatch:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:alarm:${var.name}-*"
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

data "aws_region" "this" {}

resource "aws_sns_topic" "this" {
  #checkov:skip=CKV_AWS_26:CloudWatch cannot publish to a topic under the key that AWS manages, and a key of one's own costs more than what an alarm says is worth hiding
  name         = local.topic_name
  display_name = var.name

  tags = { Name = local.topic_name }
}

resource "aws_sns_topic_policy" "this" {
  arn = aws_sns_topic.this.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsOfThisEdge"
        Effect    = "Allow"
        Action    = "sns:Publish"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Resource  = aws_sns_topic.this.arn
        Condition = {
          StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id }
          ArnLike      = { "aws:SourceArn" = local.alarm_arns }
        }
      },
      {
        Sid       = "OnlyByTls"
        Effect    = "Deny"
        Action    = "sns:Publish"
        Principal = "*"
        Resource  = aws_sns_topic.this.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

# Whoever is named confirms it: by the link in a mail, or by the answer of the service.
resource "aws_sns_topic_subscription" "this" {
  for_each = { for who in var.notify : "${who.protocol}-${substr(sha256(who.endpoint), 0, 8)}" => who }

  topic_arn = aws_sns_topic.this.arn
  protocol  = each.value.protocol
  endpoint  = each.value.endpoint
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.this.arn]
  ok_actions          = [aws_sns_topic.this.arn]

  dynamic "metric_query" {
    for_each = each.value.dimensions

    content {
      id          = "m${metric_query.key}"
      return_data = length(each.value.dimensions) == 1

      metric {
        namespace   = each.value.namespace
        metric_name = each.value.metric
        dimensions  = metric_query.value
        stat        = each.value.statistic
        period      = each.value.period
      }
    }
  }

  dynamic "metric_query" {
    for_each = length(each.value.dimensions) > 1 ? [1] : []

    content {
      id          = "all"
      label       = "${each.value.metric} of all listeners"
      expression  = "${each.value.reduce}(METRICS())"
      return_data = true
    }
  }

  tags = { Name = "${var.name}-${each.key}" }
}
