locals {
  # Seconds that others may remember an address.
  ttl_s = 60

  # RFC 3263: which transports there are at a name, and on which ports. TLS ends on the instances, so that its listener is one of TCP.
  services = {
    TCP_UDP = ["_sip._udp", "_sip._tcp"]
    UDP     = ["_sip._udp"]
    TCP     = ["_sips._tcp"]
  }
  pairs = flatten([for listener in var.listeners : [for service in local.services[listener.protocol] : { service = service, port = listener.port }]])
  srv   = { for pair in local.pairs : pair.service => pair.port... if var.srv }
}

data "aws_route53_zone" "this" {
  name         = var.zone
  private_zone = false
}

resource "aws_route53_record" "address" {
  zone_id = data.aws_route53_zone.this.zone_id
  name    = var.name
  type    = "A"
  ttl     = local.ttl_s
  records = var.addresses
}

resource "aws_route53_record" "service" {
  for_each = local.srv

  zone_id = data.aws_route53_zone.this.zone_id
  name    = "${each.key}.${var.name}"
  type    = "SRV"
  ttl     = local.ttl_s
  records = [for port in each.value : "10 10 ${port} ${var.name}"]
}
