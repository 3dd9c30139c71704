variable "name" {
  description = "Prefix of all names."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.name) > 0
    error_message = "name may not be empty."
  }
}

variable "vpc_id" {
  description = "VPC of the groups."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.vpc_id) > 0
    error_message = "vpc_id may not be empty."
  }
}

variable "load_balanced" {
  description = "Whether a load balancer stands before the instances. If so, carriers reach the load balancer, and only it reaches the instances."
  type        = bool
  nullable    = false
}

variable "listeners" {
  description = "Ports and protocols of SIP: TCP_UDP, UDP or TCP."
  type = list(object({
    port     = number
    protocol = string
  }))
  nullable = false

  validation {
    condition     = length(var.listeners) > 0 && alltrue([for listener in var.listeners : contains(["TCP_UDP", "UDP", "TCP"], listener.protocol)])
    error_message = "listeners needs at least one, each of protocol TCP_UDP, UDP or TCP."
  }
  validation {
    condition     = alltrue([for listener in var.listeners : listener.port != var.admin_port])
    error_message = "No listener may have the admin port: it would be open to the carriers."
  }
}

variable "carrier_ranges" {
  description = "Source ranges from which SIP is admitted, by the name of the carrier or trunk."
  type        = map(list(string))
  nullable    = false

  validation {
    condition     = alltrue([for range in flatten(values(var.carrier_ranges)) : try(cidrhost(range, 0) == split("/", range)[0], false)])
    error_message = "Each of carrier_ranges must be an IPv4 range in CIDR form, without bits behind the prefix."
  }
}

variable "admin_port" {
  description = "Port of health checks and metrics on the private address. Behind a load balancer, it alone reaches it; without, nobody does."
  type        = number
  nullable    = false

  validation {
    condition     = var.admin_port >= 1 && var.admin_port <= 65535
    error_message = "admin_port must be 1 to 65535."
  }
}

variable "rules_quota" {
  description = "Inbound rules that this account admits in one security group (Amazon VPC quotas; 60 unless raised)."
  type        = number
  nullable    = false
  default     = 60

  validation {
    condition     = var.rules_quota >= 1 && var.rules_quota <= 1000
    error_message = "rules_quota must be 1 to 1000."
  }
}
