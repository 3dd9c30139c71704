output "ingress_addresses" {
  description = "Where carriers send calls: the Elastic IP."
  value       = [aws_eip.this.public_ip]
}

output "egress_addresses" {
  description = "Address from which calls leave: the Elastic IP as well. The destination's carrier admits it."
  value       = [aws_eip.this.public_ip]
}

output "capacity" {
  description = "What the egress addresses carry: how many there are, ports to one destination (address, port, protocol), and calls if each held two of them. The proxy itself needs fewer: by UDP all calls of an instance to a destination share one port, by TCP and TLS one connection."
  value = {
    egress_addresses = 1
    ports            = local.ports_per_egress_address
    calls            = floor(local.ports_per_egress_address / 2)
  }
}

output "vpc_id" {
  description = "VPC of the edge."
  value       = module.network.vpc_id
}

output "security_group_ids" {
  description = "Security groups, by what they stand before."
  value       = { instances = module.security.instances_id }
}

output "group_name" {
  description = "Autoscaling group."
  value       = module.instances.group_name
}

output "launch_template_id" {
  description = "Launch template."
  value       = module.instances.launch_template_id
}

output "launch_template_version" {
  description = "Newest version of the launch template. The group runs the one that the last refresh has brought."
  value       = module.instances.launch_template_version
}

output "alarm_names" {
  description = "CloudWatch alarms. Empty without."
  value       = flatten(module.alarms[*].alarm_names)
}

output "refresh_alarm_names" {
  description = "Those of the alarms that a bad version sets off, and that roll a refresh back. Empty without alarms."
  value       = flatten(module.alarms[*].refresh_alarm_names)
}

output "topic_arn" {
  description = "SNS topic to which the alarms publish. Null without alarms."
  value       = one(module.alarms[*].topic_arn)
}

output "dashboard_name" {
  description = "CloudWatch dashboard. Null without alarms."
  value       = one(module.alarms[*].dashboard_name)
}

output "dns_names" {
  description = "Names that are published. Empty without dns."
  value       = flatten(module.dns[*].names)
}

output "elastic_ip_allocation_id" {
  description = "Allocation of the Elastic IP, which the instance associates with itself."
  value       = aws_eip.this.allocation_id
}
