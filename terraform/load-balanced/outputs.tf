output "ingress_addresses" {
  description = "Where carriers send calls: the Elastic IP of each zone, in their order. The edge advertises the first."
  value       = local.ingress_addresses
}

output "egress_addresses" {
  description = "Addresses of the NAT gateways, from which calls leave. The destination's carrier admits them."
  value       = module.network.egress_addresses
}

output "capacity" {
  description = "What the egress addresses carry: how many there are, ports to one destination (address, port, protocol), and calls if each held two of them. The proxy itself needs fewer: by UDP all calls of an instance to a destination share one port, by TCP and TLS one connection."
  value = {
    egress_addresses = length(module.network.egress_addresses)
    ports            = length(module.network.egress_addresses) * local.ports_per_egress_address
    calls            = floor(length(module.network.egress_addresses) * local.ports_per_egress_address / 2)
  }
}

output "vpc_id" {
  description = "VPC of the edge."
  value       = module.network.vpc_id
}

output "security_group_ids" {
  description = "Security groups, by what they stand before."
  value       = { instances = module.security.instances_id, load_balancer = module.security.load_balancer_id }
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

output "load_balancer_arn" {
  description = "ARN of the load balancer."
  value       = module.load_balancer.arn
}

output "load_balancer_dns_name" {
  description = "Name under which AWS publishes the load balancer's addresses."
  value       = module.load_balancer.dns_name
}

output "target_group_arns" {
  description = "Target group of each listener, by port."
  value       = module.load_balancer.target_group_arns
}
