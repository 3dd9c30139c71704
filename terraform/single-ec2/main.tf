# One instance with one Elastic IP, for calls in and out. It is a group of one: a lost instance is replaced, and a new version comes up and has
# called itself before it takes the address.

locals {
  topology = "single-ec2"
  name     = "sipedge-${var.name}-${local.topology}"

  # On everything: by the provider's default tags, and by the launch template where those do not reach.
  tags = merge(var.tags, {
    "sipedge:edge"     = var.name
    "sipedge:topology" = local.topology
  })

  user_data_template = startswith(var.user_data_template, "/") ? var.user_data_template : "${path.root}/${var.user_data_template}"

  # Without NAT gateway every port above the first 1,024 is the instance's own.
  ports_per_egress_address = 64512
}

module "network" {
  source = "../modules/network"

  name           = local.name
  vpc_cidr       = var.vpc_cidr
  zones          = var.zones
  public_subnets = var.public_subnets
  existing_vpc   = var.existing_vpc
}

module "security" {
  source = "../modules/security"

  name           = local.name
  vpc_id         = module.network.vpc_id
  load_balanced  = false
  listeners      = var.listeners
  carrier_ranges = var.carrier_ranges
  admin_port     = var.admin_port
  rules_quota    = var.rules_quota
}

# Terraform holds the address and leaves it to the instances whose it is.
resource "aws_eip" "this" {
  #checkov:skip=CKV2_AWS_19:the instance that is ready associates it with itself
  domain = "vpc"

  tags = { Name = local.name }
}

module "instances" {
  source = "../modules/instances"

  name               = local.name
  image_id           = var.image_id
  root_device_name   = var.root_device_name
  instance_type      = var.instance_type
  volume_gib         = var.volume_gib
  subnet_ids         = [module.network.public_subnet_ids[var.zones[0]]]
  security_group_ids = [module.security.instances_id]

  user_data = templatefile(local.user_data_template, {
    ingress_address       = aws_eip.this.public_ip
    elastic_ip_allocation = aws_eip.this.allocation_id
  })

  # Until the Elastic IP is its own; it goes when that one comes.
  public_address = true
  elastic_ip     = { allocation_id = aws_eip.this.allocation_id }
  scaling        = { min = 1, max = 1 }

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
  notify      = var.alarms.notify
  chatbot     = var.alarms.chatbot
}

module "dns" {
  source = "../modules/dns"
  count  = var.dns == null ? 0 : 1

  zone      = var.dns.zone
  name      = var.dns.name
  srv       = var.dns.srv
  addresses = [aws_eip.this.public_ip]
  listeners = var.listeners
}
