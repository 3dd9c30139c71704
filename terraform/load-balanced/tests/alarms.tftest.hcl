# modules/alarms and modules/dns

mock_provider "aws" {
  source = "../mocks"
}

run "five_alarms_tell_of_what_ends_calls" {
  module {
    source = "../modules/alarms"
  }

  variables {
    name       = "sipedge-bridge-load-balanced"
    group_name = "sipedge-bridge-load-balanced"
    desired    = 8
    load_balancer = {
      arn_suffix    = "net/edge/0123456789abcdef"
      target_groups = { "5060" = "targetgroup/a/0123456789abcdef", "5061" = "targetgroup/b/0123456789abcdef" }
    }
    notify  = [{ protocol = "email", endpoint = "ops@example.com" }, { protocol = "https", endpoint = "https://events.example.com/x" }]
    chatbot = { slack_workspace_id = "T0123ABCD", slack_channel_id = "C0123ABCD" }
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["unhealthy-hosts", "few-healthy-hosts", "no-healthy-hosts", "cpu-high", "desired-capacity-high"])
    error_message = "Five alarms."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["few-healthy-hosts"].threshold == 2 && aws_cloudwatch_metric_alarm.this["few-healthy-hosts"].comparison_operator == "LessThanThreshold"
    error_message = "Fewer than two healthy hosts."
  }
  assert {
    condition     = toset(output.refresh_alarm_names) == toset([for key in ["unhealthy-hosts", "few-healthy-hosts", "no-healthy-hosts", "cpu-high"] : "sipedge-bridge-load-balanced-${key}"])
    error_message = "That the group has grown rolls no version back, got ${jsonencode(output.refresh_alarm_names)}."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-healthy-hosts"].treat_missing_data == "breaching" && startswith(aws_cloudwatch_metric_alarm.this["no-healthy-hosts"].alarm_description, "CRITICAL")
    error_message = "No figure at all is no healthy host."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["desired-capacity-high"].threshold == 8 && aws_cloudwatch_metric_alarm.this["cpu-high"].threshold == 80
    error_message = "Eight of ten, 80 %."
  }
  assert {
    condition     = length([for query in aws_cloudwatch_metric_alarm.this["unhealthy-hosts"].metric_query : query if query.return_data]) == 1
    error_message = "An alarm looks at one figure, over all listeners."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : length(alarm.alarm_actions) == 1 && startswith(alarm.alarm_name, "sipedge-bridge-load-balanced-")])
    error_message = "All publish to the topic, and all bear the edge's name."
  }
  assert {
    condition     = length(aws_sns_topic_subscription.this) == 2
    error_message = "Whoever is named is subscribed."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 4
    error_message = "The dashboard has four widgets."
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : length(widget.properties.metrics) >= 2])
    error_message = "Each widget shows something."
  }
  assert {
    condition     = aws_chatbot_slack_channel_configuration.this["slack"].guardrail_policy_arns == tolist(["arn:aws:iam::aws:policy/CloudWatchReadOnlyAccess"])
    error_message = "The channel may look, and do nothing."
  }
}

run "a_group_that_may_have_one_instance_is_not_told_that_it_has" {
  command = plan

  module {
    source = "../modules/alarms"
  }

  variables {
    name       = "sipedge-bridge-load-balanced"
    group_name = "sipedge-bridge-load-balanced"
    min        = 1
    load_balancer = {
      arn_suffix    = "net/edge/0123456789abcdef"
      target_groups = { "5060" = "targetgroup/a/0123456789abcdef" }
    }
  }

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "few-healthy-hosts") && contains(keys(aws_cloudwatch_metric_alarm.this), "no-healthy-hosts")
    error_message = "One healthy instance is as many as there should be; none is an alarm."
  }
}

run "a_name_that_is_no_slack_id_is_refused" {
  command = plan

  module {
    source = "../modules/alarms"
  }

  variables {
    name       = "sipedge-bridge-load-balanced"
    group_name = "sipedge-bridge-load-balanced"
    chatbot    = { slack_workspace_id = "my-team", slack_channel_id = "#alarms" }
  }

  expect_failures = [var.chatbot]
}

run "names_lead_to_every_address_and_transport" {
  module {
    source = "../modules/dns"
  }

  variables {
    zone      = "example.com."
    name      = "sip.example.com"
    addresses = ["203.0.113.10", "203.0.113.11", "203.0.113.12"]
    listeners = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }]
  }

  assert {
    condition     = length(aws_route53_record.address.records) == 3
    error_message = "The A record has all addresses."
  }
  assert {
    condition     = { for service, record in aws_route53_record.service : service => one(record.records) } == { "_sip._udp" = "10 10 5060 sip.example.com", "_sip._tcp" = "10 10 5060 sip.example.com", "_sips._tcp" = "10 10 5061 sip.example.com" }
    error_message = "Each transport has its port."
  }
}

run "without_srv_there_is_the_address_alone" {
  command = plan

  module {
    source = "../modules/dns"
  }

  variables {
    zone      = "example.com."
    name      = "sip.example.com"
    srv       = false
    addresses = ["203.0.113.10"]
    listeners = [{ port = 5060, protocol = "TCP_UDP" }]
  }

  assert {
    condition     = length(aws_route53_record.service) == 0
    error_message = "srv = false means none."
  }
}
