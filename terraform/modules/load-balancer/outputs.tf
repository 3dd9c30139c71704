output "arn" {
  description = "ARN of the load balancer."
  value       = aws_lb.this.arn
}

output "arn_suffix" {
  description = "The load balancer as CloudWatch names it."
  value       = aws_lb.this.arn_suffix
}

output "dns_name" {
  description = "Name under which AWS publishes the load balancer's addresses."
  value       = aws_lb.this.dns_name
}

output "ingress_addresses" {
  description = "Elastic IP of each zone, in the order of the zones' names."
  value       = { for zone, address in aws_eip.ingress : zone => address.public_ip }
}

output "target_group_arns" {
  description = "Target group of each listener, by port."
  value       = { for key, group in aws_lb_target_group.this : key => group.arn }

  # A target that no listener leads to is never healthy.
  depends_on = [aws_lb_listener.this]
}

output "target_group_arn_suffixes" {
  description = "The target groups as CloudWatch names them, by port."
  value       = { for key, group in aws_lb_target_group.this : key => group.arn_suffix }
}

output "target_group_names" {
  description = "Names of the target groups, by port."
  value       = { for key, group in aws_lb_target_group.this : key => group.name }
}

output "listener_ids" {
  description = "Listeners, by port."
  value       = { for key, listener in aws_lb_listener.this : key => listener.id }
}
