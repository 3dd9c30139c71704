variable "name" {
  description = "Prefix of all names. The load balancer and its target groups bear a short form with a hash."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]*$", var.name))
    error_message = "name may have letters, digits and hyphens, the first no hyphen."
  }
}

variable "vpc_id" {
  description = "VPC of the target groups."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.vpc_id) > 0
    error_message = "vpc_id may not be empty."
  }
}

variable "subnet_ids" {
  description = "Public subnet of each zone. Each gets a node of the load balancer with an Elastic IP of its own; targets in other zones would not be used."
  type        = map(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids needs at least one zone."
  }
}

variable "security_group_ids" {
  description = "Security groups of the load balancer."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "security_group_ids needs at least one group: a load balancer that is made without can get none."
  }
}

variable "listeners" {
  description = "Ports and protocols: TCP_UDP, UDP or TCP. Each has a target group of the same."
  type = list(object({
    port     = number
    protocol = string
  }))
  nullable = false

  validation {
    condition     = length(var.listeners) > 0 && length(distinct(var.listeners[*].port)) == length(var.listeners)
    error_message = "listeners needs at least one, and no port twice: UDP and TCP on one port are one TCP_UDP listener."
  }
  validation {
    condition     = alltrue([for listener in var.listeners : contains(["TCP_UDP", "UDP", "TCP"], listener.protocol)])
    error_message = "The protocol of a listener must be TCP_UDP, UDP or TCP; TLS ends on the instances and is TCP here."
  }
  validation {
    condition     = alltrue([for listener in var.listeners : listener.port >= 1 && listener.port <= 65535])
    error_message = "The port of a listener must be 1 to 65535."
  }
}

variable "spreading" {
  description = "`source-ip`: all flows of an address go to one instance. `five-tuple`: each flow by itself."
  type        = string
  nullable    = false
  default     = "source-ip"

  validation {
    condition     = contains(["source-ip", "five-tuple"], var.spreading)
    error_message = "spreading must be source-ip or five-tuple."
  }
}

variable "health_check" {
  description = "HTTP health check of the instances: port, path, seconds between checks, and how many in a row change an instance's state."
  type = object({
    port       = number
    path       = optional(string, "/readyz")
    interval_s = optional(number, 30)
    healthy    = optional(number, 2)
    unhealthy  = optional(number, 2)
  })
  nullable = false

  # Network Load Balancers, "Health checks for target groups".
  validation {
    condition     = var.health_check.interval_s >= 5 && var.health_check.interval_s <= 300
    error_message = "health_check.interval_s must be 5 to 300."
  }
  validation {
    condition     = min(var.health_check.healthy, var.health_check.unhealthy) >= 2 && max(var.health_check.healthy, var.health_check.unhealthy) <= 10
    error_message = "health_check.healthy and health_check.unhealthy must be 2 to 10."
  }
  validation {
    condition     = startswith(var.health_check.path, "/")
    error_message = "health_check.path must begin with a slash."
  }
}

variable "deregistration_delay_s" {
  description = "Seconds that an instance which leaves keeps the flows that it has."
  type        = number
  nullable    = false
  default     = 180

  validation {
    condition     = var.deregistration_delay_s >= 0 && var.deregistration_delay_s <= 3600
    error_message = "deregistration_delay_s must be 0 to 3600."
  }
}
