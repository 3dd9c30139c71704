output "names" {
  description = "Names that are published."
  value       = concat([aws_route53_record.address.name], sort([for record in aws_route53_record.service : record.name]))
}
