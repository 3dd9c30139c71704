output "group_name" {
  description = "Autoscaling group."
  value       = aws_autoscaling_group.this.name
}

output "launch_template_id" {
  description = "Launch template."
  value       = aws_launch_template.this.id
}

output "launch_template_version" {
  description = "Newest version of the launch template. The group runs the one that the last refresh has brought."
  value       = aws_launch_template.this.latest_version
}

output "role_name" {
  description = "IAM role of the instances."
  value       = aws_iam_role.this.name
}

output "hook_names" {
  description = "Lifecycle hooks: `ready` at launch, `drain` at termination."
  value       = sort(keys(local.hooks))
}
