output "alarm_names" {
  description = "Alarms. Their names begin with the prefix and a hyphen."
  value       = sort([for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name])
}

output "refresh_alarm_names" {
  description = "Those of the alarms that a bad version sets off: they end a refresh."
  value       = sort([for key, alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name if !contains(local.of_any_version, key)])
}

output "topic_arn" {
  description = "SNS topic to which the alarms publish."
  value       = aws_sns_topic.this.arn
}

output "dashboard_name" {
  description = "CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}
