# Four widgets: are there instances, what passes, how busy are they, how many does the group want.

locals {
  region = data.aws_region.this.name

  groups = ["AutoScalingGroupName", var.group_name]

  # CloudWatch, "Dashboard body structure": a metric is namespace, name, dimensions, and how it is drawn.
  health_metrics = var.load_balancer == null ? [
    concat(["AWS/AutoScaling", "GroupInServiceInstances"], local.groups, [{ label = "in service", stat = "Minimum" }]),
    concat(["AWS/EC2", "StatusCheckFailed"], local.groups, [{ label = "status check failed", stat = "Maximum" }]),
    ] : flatten([for dimensions in local.balancers : [
      { name = "HealthyHostCount", label = "healthy", stat = "Minimum", dimensions = dimensions },
      { name = "UnHealthyHostCount", label = "unhealthy", stat = "Maximum", dimensions = dimensions },
  ]])
  health_widget = var.load_balancer == null ? local.health_metrics : [
    for metric in local.health_metrics : ["AWS/NetworkELB", metric.name, "LoadBalancer", metric.dimensions.LoadBalancer, "TargetGroup", metric.dimensions.TargetGroup, { label = metric.label, stat = metric.stat }]
  ]

  traffic_widget = var.load_balancer == null ? [
    concat(["AWS/EC2", "NetworkPacketsIn"], local.groups, [{ label = "packets in", stat = "Sum" }]),
    concat(["AWS/EC2", "NetworkPacketsOut"], local.groups, [{ label = "packets out", stat = "Sum" }]),
    ] : [
    ["AWS/NetworkELB", "ProcessedPackets", "LoadBalancer", var.load_balancer.arn_suffix, { label = "packets", stat = "Sum" }],
    ["AWS/NetworkELB", "NewFlowCount", "LoadBalancer", var.load_balancer.arn_suffix, { label = "new flows", stat = "Sum" }],
    ["AWS/NetworkELB", "ActiveFlowCount", "LoadBalancer", var.load_balancer.arn_suffix, { label = "active flows", stat = "Average" }],
  ]

  load_widget = concat(
    [
      concat(["AWS/EC2", "CPUUtilization"], local.groups, [{ label = "CPU %", stat = "Average" }]),
      concat(["AWS/EC2", "NetworkIn"], local.groups, [{ label = "bytes in", stat = "Average", yAxis = "right" }]),
    ],
    var.load_balancer == null ? [concat(["AWS/EC2", "CPUCreditBalance"], local.groups, [{ label = "CPU credits", stat = "Minimum" }])] : [],
  )

  group_widget = [for metric, label in {
    GroupDesiredCapacity      = "desired"
    GroupInServiceInstances   = "in service"
    GroupPendingInstances     = "booting"
    GroupTerminatingInstances = "draining"
  } : concat(["AWS/AutoScaling", metric], local.groups, [{ label = label, stat = "Maximum" }])]

  widgets = [
    { title = "Instances", metrics = local.health_widget },
    { title = "Traffic", metrics = local.traffic_widget },
    { title = "Load", metrics = local.load_widget },
    { title = "Group", metrics = local.group_widget },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = index % 2 * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = local.region
        view    = "timeSeries"
        period  = 60
        metrics = widget.metrics
      }
    }]
  })
}
