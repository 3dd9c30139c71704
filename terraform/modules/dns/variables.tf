variable "zone" {
  description = "Public hosted zone of Route 53, such as `example.com.`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z0-9-]+\\.?$", var.zone))
    error_message = "zone must be a domain name in small letters, such as example.com."
  }
}

variable "name" {
  description = "Name of the edge in the zone, such as `sip.example.com`."
  type        = string
  nullable    = false

  validation {
    condition     = trimsuffix(var.name, ".") == trimsuffix(var.zone, ".") || endswith(trimsuffix(var.name, "."), ".${trimsuffix(var.zone, ".")}")
    error_message = "name must be the zone's name or end with it."
  }
}

variable "srv" {
  description = "Whether there are SRV records for each transport: `_sip._udp`, `_sip._tcp`, `_sips._tcp`."
  type        = bool
  nullable    = false
  default     = true
}

variable "addresses" {
  description = "Addresses at which the edge is reached."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.addresses) > 0
    error_message = "addresses needs at least one address."
  }
}

variable "listeners" {
  description = "Ports and protocols of SIP: TCP_UDP and UDP are plain SIP, TCP is SIP over TLS."
  type = list(object({
    port     = number
    protocol = string
  }))
  nullable = false

  validation {
    condition     = length(var.listeners) > 0 && alltrue([for listener in var.listeners : contains(["TCP_UDP", "UDP", "TCP"], listener.protocol)])
    error_message = "listeners needs at least one, each of protocol TCP_UDP, UDP or TCP."
  }
}
