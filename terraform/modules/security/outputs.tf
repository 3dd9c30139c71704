output "instances_id" {
  description = "Security group of the instances, with its rules."
  value       = aws_security_group.instances.id

  # An instance that runs before its rules are there cannot call itself ready.
  depends_on = [
    aws_vpc_security_group_egress_rule.instances,
    aws_vpc_security_group_ingress_rule.carriers_to_instances,
    aws_vpc_security_group_ingress_rule.load_balancer_to_instances,
  ]
}

output "load_balancer_id" {
  description = "Security group of the load balancer, with its rules; null without one."
  value       = one(aws_security_group.load_balancer[*].id)

  depends_on = [
    aws_vpc_security_group_egress_rule.load_balancer_to_instances,
    aws_vpc_security_group_ingress_rule.carriers_to_load_balancer,
  ]
}
