# A Network Load Balancer with one address in each zone, instances in private subnets behind it, and NAT gateways by whose addresses their calls leave.

locals {
  topology = "load-balanced"
  name     = "sipedge-${var.name}-${local.topology}"

  # On everything: by the provider's default tags, and by the launch template where those do not reach.
  tags = merge(var.tags, {
    "sipedge:edge"     = var.name
    "sipedge:topology" = local.topology
  })

  # In the order of the zones. The first is the one that the edge writes into Via and Record-Route.
  ingress_addresses = [for zone in var.zones : module.load_balancer.ingress_addresses[zone]]

  user_data_template = startswith(var.user_data_template, "/") ? var.user_data_template : "${path.root}/${var.user_data_template}"

  # 8 of 10. Where that is the group's usual size it would tell nothing.
  desired_alarm = try(coalesce(var.alarms.desired, ceil(var.scaling.max * 0.8) > var.scaling.min ? ceil(var.scaling.max * 0.8) : null), null)

  # Amazon VPC User Guide, "NAT gateway basics": 55,000 connections to one destination (address, port, protocol) from each address.
  ports_per_egress_address = 55000
}

module "network" {
  source = "../modules/network"

  name            = local.name
  vpc_cidr        = var.vpc_cidr
  zones           = var.zones
  public_subnets  = var.public_subnets
  private         = true
  private_subnets = var.private_subnets
  egress          = var.egress
  existing_vpc    = var.existing_vpc
}

module "security" {
  source = "../modules/security"

  name           = local.name
  vpc_id         = module.network.vpc_id
  load_balanced  = true
  listeners      = var.listeners
  carrier_ranges = var.carrier_ranges
  admin_port     = var.admin_port
  rules_quota    = var.rules_quota
}

module "load_balancer" {
  source = "../modules/load-balancer"

  name                   = local.name
  vpc_id                 = module.network.vpc_id
  subnet_ids             = module.network.public_subnet_ids
  security_group_ids     = [module.security.load_balancer_id]
  listeners              = var.listeners
  spreading              = var.spreading
  health_check           = merge(var.health_check, { port = var.admin_port })
  deregistration_delay_s = var.deregistration_delay_s
}

module "instances" {
  source = "../modules/instances"

  name               = local.name
  image_id           = var.image_id
  root_device_name   = var.root_device_name
  instance_type      = var.instance_type
  volume_gib         = var.volume_gib
  user_data          = templatefile(local.user_data_template, { ingress_address = local.ingress_addresses[0] })
  subnet_ids         = [for zone in var.zones : module.network.private_subnet_ids[zone]]
  security_group_ids = [module.security.instances_id]
  public_address     = false

  scaling           = var.scaling
  target_tracking   = var.target_tracking
  target_group_arns = values(module.load_balancer.target_group_arns)

  warmup_s                   = var.warmup_s
  ready_hook_timeout_s       = var.ready_hook_timeout_s
  termination_hook_timeout_s = var.termination_hook_timeout_s
  udp_timeout_s              = var.udp_timeout_s
  udp_stream_timeout_s       = var.udp_stream_timeout_s

  parameter_prefix = coalesce(var.parameter_prefix, "/sipedge/${var.name}/${local.topology}")
  tags             = local.tags
}

module "alarms" {
  source = "../modules/alarms"
  count  = var.alarms == null ? 0 : 1

  name        = local.name
  group_name  = module.instances.group_name
  cpu_percent = var.alarms.cpu_percent
  min         = var.scaling.min
  desired     = local.desired_alarm
  notify      = var.alarms.notify
  chatbot     = var.alarms.chatbot

  load_balancer = {
    arn_suffix    = module.load_balancer.arn_suffix
    target_groups = module.load_balancer.target_group_arn_suffixes
  }
}

module "dns" {
  source = "../modules/dns"
  count  = var.dns == null ? 0 : 1

  zone      = var.dns.zone
  name      = var.dns.name
  srv       = var.dns.srv
  addresses = local.ingress_addresses
  listeners = var.listeners
}
