# modules/alarms without load balancer

mock_provider "aws" {
  source = "../mocks"
}

variables {
  name       = "sipedge-bridge-single-ec2"
  group_name = "sipedge-bridge-single-ec2"
}

run "what_costs_credits_is_told_when_aws_charges_for_it" {
  module {
    source = "../modules/alarms"
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.this["cpu-credits-charged"].metric_query : "${one(query.metric).metric_name} ${one(query.metric).stat} ${one(query.metric).period}"] == ["CPUSurplusCreditsCharged Maximum 300"]
    error_message = "An unlimited type never runs out of credits: it charges for them. The figure comes every five minutes."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["cpu-credits-charged"].threshold == 0 && aws_cloudwatch_metric_alarm.this["cpu-credits-charged"].comparison_operator == "GreaterThanThreshold"
    error_message = "Any charge is one too many."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["cpu-credits-charged"].evaluation_periods == 3 && aws_cloudwatch_metric_alarm.this["cpu-credits-charged"].datapoints_to_alarm == 3
    error_message = "For a quarter of an hour."
  }
  assert {
    condition     = one(one(aws_cloudwatch_metric_alarm.this["no-instance"].metric_query).metric).period == 60
    error_message = "The others look at minutes."
  }
  assert {
    condition     = !contains(output.refresh_alarm_names, "sipedge-bridge-single-ec2-cpu-credits-charged") && length(output.refresh_alarm_names) == 4
    error_message = "Credits say nothing of the version, got ${jsonencode(output.refresh_alarm_names)}."
  }
}
