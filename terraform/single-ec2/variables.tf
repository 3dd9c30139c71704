# Where: the edge, its account, its place in the network.

variable "name" {
  description = "Name of the edge: 1 to 32 characters of a-z, 0-9 and hyphen, the first a letter."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "name must have 1 to 32 characters of a-z, 0-9 and hyphen, the first a letter."
  }
}

variable "region" {
  description = "Region, such as us-east-1."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", var.region))
    error_message = "region must be a region of AWS, such as us-east-1."
  }
}

variable "profile" {
  description = "Profile of the AWS configuration files. With `default`, credentials in the environment come first."
  type        = string
  nullable    = false
  default     = "default"

  validation {
    condition     = length(var.profile) > 0
    error_message = "profile may not be empty; leave it out for the default one."
  }
}

variable "tags" {
  description = "Tags of everything, beside sipedge:edge and sipedge:topology."
  type        = map(string)
  nullable    = false
  default     = {}

  # Amazon EC2 User Guide, "Tags in instance metadata": a key with a space or slash keeps an instance from being launched.
  validation {
    condition     = alltrue([for key in keys(var.tags) : can(regex("^[A-Za-z0-9+=.,_:@-]{1,128}$", key)) && !startswith(lower(key), "aws:")])
    error_message = "Tag keys may have letters, digits and + - = . , _ : @ only, since they are in the instance's metadata, and may not begin with aws:."
  }
  # 50 tags on a resource; Name and the two of the edge are added.
  validation {
    condition     = length(var.tags) <= 47 && alltrue([for value in values(var.tags) : length(value) <= 256])
    error_message = "tags may have up to 47 entries, with values of up to 256 characters."
  }
}

variable "zones" {
  description = "The availability zone of the instance: one."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) == 1
    error_message = "zones must name one zone: one address is that of one instance, in one zone. Several zones need the topology load-balanced."
  }
  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "Each of zones must be an availability zone of the region, such as us-east-1a."
  }
}

variable "vpc_cidr" {
  description = "Range of the VPC, /16 to /28."
  type        = string
  nullable    = false
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 28, false)
    error_message = "vpc_cidr must be an IPv4 range of /16 to /28, such as 10.0.0.0/16."
  }
}

variable "public_subnets" {
  description = "Range of the public subnet of each zone, within vpc_cidr."
  type        = map(string)
  nullable    = false
  default     = {}

  validation {
    condition     = var.existing_vpc != null || alltrue([for zone in var.zones : contains(keys(var.public_subnets), zone)])
    error_message = "Each of zones needs its range in public_subnets."
  }
}

variable "existing_vpc" {
  description = "A VPC that exists and the subnets of each zone (public ones are enough), in place of one that is made. Nothing is made in it but the edge itself."
  type = object({
    id                 = string
    public_subnet_ids  = map(string)
    private_subnet_ids = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.existing_vpc == null || can(regex("^vpc-[0-9a-f]+$", var.existing_vpc.id))
    error_message = "existing_vpc.id must be the id of a VPC, such as vpc-0123456789abcdef0."
  }
  validation {
    condition     = var.existing_vpc == null || alltrue([for zone in var.zones : contains(keys(try(var.existing_vpc.public_subnet_ids, {})), zone)])
    error_message = "Each of zones needs its subnet in existing_vpc.public_subnet_ids."
  }
}

# SIP: ports, and who may send.

variable "listeners" {
  description = "Where SIP is received: ports with TCP_UDP, UDP, or TCP, which is SIP over TLS."
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
    condition     = alltrue([for listener in var.listeners : contains(["TCP_UDP", "UDP", "TCP"], listener.protocol) && listener.port >= 1 && listener.port <= 65535])
    error_message = "Each of listeners needs a port of 1 to 65535 and the protocol TCP_UDP, UDP or TCP."
  }
  validation {
    condition     = anytrue([for listener in var.listeners : listener.port == var.ingress_port && listener.protocol != "TCP"])
    error_message = "One of listeners must take UDP on ingress_port."
  }
}

variable "ingress_port" {
  description = "Port on which the instances receive SIP by UDP."
  type        = number
  nullable    = false
  default     = 5060

  validation {
    condition     = var.ingress_port >= 1 && var.ingress_port <= 65535
    error_message = "ingress_port must be 1 to 65535."
  }
}

variable "admin_port" {
  description = "Port of health checks and metrics on the private address. Nobody reaches it from outside the instance."
  type        = number
  nullable    = false
  default     = 8080

  validation {
    condition     = var.admin_port >= 1 && var.admin_port <= 65535 && !contains(var.listeners[*].port, var.admin_port)
    error_message = "admin_port must be 1 to 65535 and no listener's: it would be open to the carriers."
  }
}

variable "carrier_ranges" {
  description = "Source ranges from which SIP is admitted, by the name of the carrier or trunk: IPv4, /16 to /32."
  type        = map(list(string))
  nullable    = false

  validation {
    condition     = length(flatten(values(var.carrier_ranges))) > 0
    error_message = "carrier_ranges needs at least one range: nobody could call."
  }
  validation {
    condition     = alltrue([for range in flatten(values(var.carrier_ranges)) : try(cidrhost(range, 0) == split("/", range)[0] && can(cidrnetmask(range)), false)])
    error_message = "Each of carrier_ranges must be an IPv4 range in CIDR form without bits behind the prefix, such as 54.172.60.0/30."
  }
  # A carrier's signalling range is a handful of addresses; a /16 already admits 65,536 strangers.
  validation {
    condition     = var.open_to_the_world || alltrue([for range in flatten(values(var.carrier_ranges)) : try(tonumber(split("/", range)[1]) >= 16, false)])
    error_message = "A range of carrier_ranges is shorter than /16, which lets in more than carriers. Name the carrier's own ranges, or set open_to_the_world if that is meant."
  }
}

variable "open_to_the_world" {
  description = "Whether carrier_ranges may have ranges shorter than /16, even 0.0.0.0/0: the edge is then reached by anybody."
  type        = bool
  nullable    = false
  default     = false
}

variable "rules_quota" {
  description = "Inbound rules that the account admits in one security group. Each range needs one for each transport. Raise it after the quota has been raised."
  type        = number
  nullable    = false
  default     = 60

  validation {
    condition     = var.rules_quota >= 1 && var.rules_quota <= 1000
    error_message = "rules_quota must be 1 to 1000."
  }
}

# The instance.

variable "image_id" {
  description = "Image of the instances, `ami-…`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "image_id must be the id of an image in this region, such as ami-0123456789abcdef0."
  }
}

variable "root_device_name" {
  description = "Root device of the image. It is not looked up: an image that is no longer there would keep the edge from being destroyed."
  type        = string
  nullable    = false
  default     = "/dev/xvda"

  validation {
    condition     = can(regex("^/dev/[a-z0-9]+$", var.root_device_name))
    error_message = "root_device_name must be a device such as /dev/xvda; `aws ec2 describe-images` shows the image's RootDeviceName."
  }
}

variable "instance_type" {
  description = "EC2 instance type, a Nitro type of the image's architecture."
  type        = string
  nullable    = false
  default     = "t3.small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "instance_type must be an EC2 instance type, such as t3.small."
  }
}

variable "volume_gib" {
  description = "Size of the root volume in GiB, no smaller than the image's snapshot."
  type        = number
  nullable    = false
  default     = 8

  validation {
    condition     = var.volume_gib >= 1 && var.volume_gib <= 1024 && floor(var.volume_gib) == var.volume_gib
    error_message = "volume_gib must be a whole number of 1 to 1024."
  }
}

variable "user_data_template" {
  description = "File with the instances' configuration as `sipedge plan --out` writes it; a relative path begins at the root module. Filled in: `ingress_address`, and `elastic_ip_allocation`."
  type        = string
  nullable    = false
  default     = "user-data.tftpl"

  validation {
    condition     = fileexists(startswith(var.user_data_template, "/") ? var.user_data_template : "${path.root}/${var.user_data_template}")
    error_message = "user_data_template names no file. `sipedge plan --target aws --out FOLDER` writes user-data.tftpl beside the variables."
  }
}

variable "parameter_prefix" {
  description = "Path of the SSM parameters with the edge's secrets, which the instances may read. Null: /sipedge/NAME/single-ec2."
  type        = string
  default     = null

  validation {
    condition     = var.parameter_prefix == null || can(regex("^(/[A-Za-z0-9_.-]+){2,15}$", var.parameter_prefix))
    error_message = "parameter_prefix must have at least two levels and no slash at its end, such as /sipedge/edge/single-ec2."
  }
}

variable "ready_hook_timeout_s" {
  description = "Seconds that a new instance has to boot and place a call through itself. Then it is given up and another is launched."
  type        = number
  nullable    = false
  default     = 300

  validation {
    condition     = var.ready_hook_timeout_s >= 30 && var.ready_hook_timeout_s <= 7200
    error_message = "ready_hook_timeout_s must be 30 to 7200."
  }
}

variable "termination_hook_timeout_s" {
  description = "Seconds that an instance has for its last calls before it is terminated."
  type        = number
  nullable    = false
  default     = 1020

  validation {
    condition     = var.termination_hook_timeout_s >= 30 && var.termination_hook_timeout_s <= 7200
    error_message = "termination_hook_timeout_s must be 30 to 7200."
  }
}

variable "warmup_s" {
  description = "Seconds after an instance is in service until its figures count for scaling, and until a refresh goes on."
  type        = number
  nullable    = false
  default     = 60

  validation {
    condition     = var.warmup_s >= 0 && var.warmup_s <= 3600
    error_message = "warmup_s must be 0 to 3600."
  }
}

variable "udp_timeout_s" {
  description = "Seconds after which an instance's network interface forgets a UDP flow that has been seen in one direction only."
  type        = number
  nullable    = false
  default     = 60

  validation {
    condition     = var.udp_timeout_s >= 30 && var.udp_timeout_s <= 60
    error_message = "udp_timeout_s must be 30 to 60."
  }
}

variable "udp_stream_timeout_s" {
  description = "Seconds after which an instance's network interface forgets a UDP flow that has been seen in both directions."
  type        = number
  nullable    = false
  default     = 180

  validation {
    condition     = var.udp_stream_timeout_s >= 60 && var.udp_stream_timeout_s <= 180
    error_message = "udp_stream_timeout_s must be 60 to 180."
  }
}

# Who is told, and names.

variable "alarms" {
  description = "Alarms, dashboard and who is told: by mail, by HTTPS request, or in a Slack channel whose workspace has been authorised in the console. `desired` belongs to the other topology. Null: none of them."
  type = object({
    notify = optional(list(object({
      protocol = string
      endpoint = string
    })), [])
    chatbot = optional(object({
      slack_workspace_id = string
      slack_channel_id   = string
    }))
    cpu_percent = optional(number, 80)
    desired     = optional(number)
  })
  default = {}

  validation {
    condition = var.alarms == null || alltrue([for who in try(var.alarms.notify, []) :
      who.protocol == "email" ? can(regex("^[^@[:space:]]+@[^@[:space:]]+$", who.endpoint)) : who.protocol == "https" ? startswith(who.endpoint, "https://") : false
    ])
    error_message = "Each of alarms.notify must be an email with a mail address, or https with an address that begins with https://."
  }
  validation {
    condition     = var.alarms == null || try(var.alarms.cpu_percent >= 1 && var.alarms.cpu_percent <= 100, false)
    error_message = "alarms.cpu_percent must be 1 to 100."
  }
}

variable "dns" {
  description = "Names in a public hosted zone of Route 53: an A record with the edge's addresses and, with srv, SRV records for its transports. Null: none."
  type = object({
    zone = string
    name = string
    srv  = optional(bool, true)
  })
  default = null

  validation {
    condition = var.dns == null || try(
      trimsuffix(var.dns.name, ".") == trimsuffix(var.dns.zone, ".") || endswith(trimsuffix(var.dns.name, "."), ".${trimsuffix(var.dns.zone, ".")}"),
    false)
    error_message = "dns.name must be dns.zone or end with it."
  }
}
