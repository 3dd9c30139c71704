output "vpc_id" {
  description = "VPC of the edge."
  value       = local.made ? aws_vpc.this[0].id : var.existing_vpc.id
}

output "public_subnet_ids" {
  description = "Public subnet of each zone, connected to the Internet."
  value       = local.made ? { for zone, subnet in aws_subnet.public : zone => subnet.id } : local.existing_public

  # Whoever takes a subnet takes its way out as well: an instance asks AWS for its secrets as soon as it runs.
  depends_on = [aws_route.public, aws_route_table_association.public]
}

output "private_subnet_ids" {
  description = "Private subnet of each zone, with its way out by NAT. Empty without private subnets."
  value       = local.made ? { for zone, subnet in aws_subnet.private : zone => subnet.id } : local.existing_private

  depends_on = [aws_route.private, aws_route_table_association.private]
}

output "egress_addresses" {
  description = "Addresses from which private subnets reach the Internet, in the order of the zones."
  value = local.made ? [for key in local.egress_keys : aws_eip.egress[key].public_ip] : concat(
    [for gateway in values(data.aws_nat_gateway.existing) : gateway.public_ip],
    [for address in values(data.aws_eip.existing_egress) : address.public_ip],
  )
}

output "nat_gateway_ids" {
  description = "NAT gateways."
  value       = local.made ? [for key in local.gateway_keys : aws_nat_gateway.this[key].id] : [for gateway in values(data.aws_nat_gateway.existing) : gateway.id]
}

output "egress_allocation_ids" {
  description = "Allocations of the egress addresses, in the order of `egress_addresses`; empty in a VPC that exists."
  value       = [for key in local.egress_keys : aws_eip.egress[key].id]
}
