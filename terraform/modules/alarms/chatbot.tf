# Amazon Q Developer in chat applications (AWS Chatbot) shows alarms with their graphs in a Slack channel. The workspace is authorised once, by
# hand, in the console.

locals {
  chatbot = var.chatbot == null ? {} : { slack = var.chatbot }
}

resource "aws_iam_role" "chatbot" {
  for_each = local.chatbot

  name        = "${var.name}-chatbot"
  description = "What the Slack channel of the SIP edge's alarms may look at"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "chatbot.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
    }]
  })

  tags = { Name = "${var.name}-chatbot" }
}

# The alarms of this edge and their graphs; metrics know no resources.
resource "aws_iam_role_policy" "chatbot" {
  for_each = local.chatbot

  name = "alarms"
  role = aws_iam_role.chatbot[each.key].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "cloudwatch:DescribeAlarms"
        Resource = local.alarm_arns
      },
      {
        Effect   = "Allow"
        Action   = ["cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:GetMetricWidgetImage", "cloudwatch:ListMetrics"]
        Resource = "*"
      },
    ]
  })
}

resource "aws_chatbot_slack_channel_configuration" "this" {
  for_each = local.chatbot

  configuration_name = var.name
  iam_role_arn       = aws_iam_role.chatbot[each.key].arn
  slack_team_id      = each.value.slack_workspace_id
  slack_channel_id   = each.value.slack_channel_id
  sns_topic_arns     = [aws_sns_topic.this.arn]

  # Left out it would be AdministratorAccess, for everybody in the channel.
  guardrail_policy_arns = ["arn:${data.aws_partition.this.partition}:iam::aws:policy/CloudWatchReadOnlyAccess"]

  tags = { Name = var.name }
}
