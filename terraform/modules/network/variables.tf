variable "name" {
  description = "Prefix of all names."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.name) > 0
    error_message = "name may not be empty."
  }
}

variable "vpc_cidr" {
  description = "Range of the VPC that is made, /16 to /28. Not looked at with existing_vpc."
  type        = string
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 28, false)
    error_message = "vpc_cidr must be an IPv4 range of /16 to /28, such as 10.0.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones, in the order in which their addresses are listed. With one NAT gateway, it is in the first; its addresses are the same wherever it is."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) > 0 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must name at least one zone, and none twice."
  }
}

variable "public_subnets" {
  description = "Range of the public subnet of each zone. Not looked at with existing_vpc."
  type        = map(string)
  nullable    = false

  validation {
    condition     = var.existing_vpc != null || alltrue([for zone in var.zones : contains(keys(var.public_subnets), zone)])
    error_message = "Each zone needs its public subnet in public_subnets."
  }
  validation {
    condition = var.existing_vpc != null || alltrue([for range in values(var.public_subnets) :
      try(cidrhost("${split("/", range)[0]}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0), false)
    ])
    error_message = "Each of public_subnets must be an IPv4 range within vpc_cidr."
  }
}

variable "private" {
  description = "Whether each zone has a private subnet as well, whose way out is a NAT gateway."
  type        = bool
  nullable    = false
  default     = false
}

variable "private_subnets" {
  description = "Range of the private subnet of each zone. Not looked at with existing_vpc."
  type        = map(string)
  nullable    = false
  default     = {}

  validation {
    condition     = !var.private || var.existing_vpc != null || alltrue([for zone in var.zones : contains(keys(var.private_subnets), zone)])
    error_message = "Each zone needs its private subnet in private_subnets."
  }
  validation {
    condition = var.existing_vpc != null || alltrue([for range in values(var.private_subnets) :
      try(cidrhost("${split("/", range)[0]}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0), false)
    ])
    error_message = "Each of private_subnets must be an IPv4 range within vpc_cidr."
  }
}

variable "egress" {
  description = "NAT gateways: `one`, or `per-zone`, each with 1 to 8 Elastic IPs. Not looked at with existing_vpc, whose gateways are taken as they are."
  type = object({
    gateways  = optional(string, "one")
    addresses = optional(number, 1)
  })
  nullable = false
  default  = {}

  validation {
    condition     = contains(["one", "per-zone"], var.egress.gateways)
    error_message = "egress.gateways must be one or per-zone."
  }
  # Amazon VPC User Guide, "NAT gateway basics": up to 8 addresses; more than 2 need a higher quota.
  validation {
    condition     = var.egress.addresses >= 1 && var.egress.addresses <= 8 && floor(var.egress.addresses) == var.egress.addresses
    error_message = "egress.addresses must be 1 to 8: a NAT gateway takes no more."
  }
}

variable "existing_vpc" {
  description = "A VPC that exists, with the subnets of each zone, in place of one that is made."
  type = object({
    id                 = string
    public_subnet_ids  = map(string)
    private_subnet_ids = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.existing_vpc == null || alltrue([for zone in var.zones : contains(keys(try(var.existing_vpc.public_subnet_ids, {})), zone)])
    error_message = "Each zone needs its public subnet in existing_vpc.public_subnet_ids."
  }
  validation {
    condition     = var.existing_vpc == null || !var.private || alltrue([for zone in var.zones : contains(keys(try(var.existing_vpc.private_subnet_ids, {})), zone)])
    error_message = "Each zone needs its private subnet in existing_vpc.private_subnet_ids."
  }
}
