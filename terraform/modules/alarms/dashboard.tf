# Four widgets: are there instances, what passes, how busy are they, how many does the group want.

locals {
  of_group     = { AutoScalingGroupName = var.group_name }
  of_balancer  = { LoadBalancer = try(var.load_balancer.arn_suffix, "") }
  with_balance = var.load_balancer != null

  # What each widget draws, and whether it belongs to the topology.
  widgets = [
    {
      title = "Instances"
      metrics = concat(
        [for dimensions in local.balancers : { show = true, namespace = "AWS/NetworkELB", name = "HealthyHostCount", dimensions = dimensions, label = "healthy", stat = "Minimum", axis = "left" }],
        [for dimensions in local.balancers : { show = true, namespace = "AWS/NetworkELB", name = "UnHealthyHostCount", dimensions = dimensions, label = "unhealthy", stat = "Maximum", axis = "left" }],
        [
          { show = !local.with_balance, namespace = "AWS/AutoScaling", name = "GroupInServiceInstances", dimensions = local.of_group, label = "in service", stat = "Minimum", axis = "left" },
          { show = !local.with_balance, namespace = "AWS/EC2", name = "StatusCheckFailed", dimensions = local.of_group, label = "status check failed", stat = "Maximum", axis = "left" },
        ],
      )
    },
    {
      title = "Traffic"
      metrics = [
        { show = local.with_balance, namespace = "AWS/NetworkELB", name = "ProcessedPackets", dimensions = local.of_balancer, label = "packets", stat = "Sum", axis = "left" },
        { show = local.with_balance, namespace = "AWS/NetworkELB", name = "NewFlowCount", dimensions = local.of_balancer, label = "new flows", stat = "Sum", axis = "right" },
        { show = local.with_balance, namespace = "AWS/NetworkELB", name = "ActiveFlowCount", dimensions = local.of_balancer, label = "active flows", stat = "Average", axis = "right" },
        { show = !local.with_balance, namespace = "AWS/EC2", name = "NetworkPacketsIn", dimensions = local.of_group, label = "packets in", stat = "Sum", axis = "left" },
        { show = !local.with_balance, namespace = "AWS/EC2", name = "NetworkPacketsOut", dimensions = local.of_group, label = "packets out", stat = "Sum", axis = "left" },
      ]
    },
    {
      title = "Load"
      metrics = [
        { show = true, namespace = "AWS/EC2", name = "CPUUtilization", dimensions = local.of_group, label = "CPU %", stat = "Average", axis = "left" },
        { show = true, namespace = "AWS/EC2", name = "NetworkIn", dimensions = local.of_group, label = "bytes in", stat = "Average", axis = "right" },
        { show = !local.with_balance, namespace = "AWS/EC2", name = "CPUCreditBalance", dimensions = local.of_group, label = "CPU credits", stat = "Minimum", axis = "left" },
      ]
    },
    {
      title = "Group"
      metrics = [
        { show = true, namespace = "AWS/AutoScaling", name = "GroupDesiredCapacity", dimensions = local.of_group, label = "desired", stat = "Maximum", axis = "left" },
        { show = true, namespace = "AWS/AutoScaling", name = "GroupInServiceInstances", dimensions = local.of_group, label = "in service", stat = "Maximum", axis = "left" },
        { show = true, namespace = "AWS/AutoScaling", name = "GroupPendingInstances", dimensions = local.of_group, label = "booting", stat = "Maximum", axis = "left" },
        { show = true, namespace = "AWS/AutoScaling", name = "GroupTerminatingInstances", dimensions = local.of_group, label = "draining", stat = "Maximum", axis = "left" },
      ]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  # CloudWatch API reference, "Dashboard body structure": a metric is namespace, name, pairs of dimensions, and how it is drawn.
  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = index % 2 * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title  = widget.title
        region = data.aws_region.this.name
        view   = "timeSeries"
        period = 60
        metrics = [for metric in widget.metrics : concat(
          [metric.namespace, metric.name],
          flatten([for name, value in metric.dimensions : [name, value]]),
          [{ label = metric.label, stat = metric.stat, yAxis = metric.axis }],
        ) if metric.show]
      }
    }]
  })
}
