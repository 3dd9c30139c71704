variable "name" {
  description = "Name of the group, the launch template and the role; prefix of the others. At most 64 letters, what IAM takes."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.name) >= 1 && length(var.name) <= 64
    error_message = "name must have 1 to 64 letters."
  }
}

variable "image_id" {
  description = "Image of the instances, `ami-…`."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "image_id must be the id of an image, such as ami-0123456789abcdef0."
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
  description = "EC2 instance type, of the architecture of the image. It has to be a Nitro type: only those know connection-tracking timeouts."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "instance_type must be an EC2 instance type, such as t3.small."
  }
}

variable "user_data" {
  description = "User data as the instance reads it, at most 16,384 bytes. No secret may be in it."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.user_data) > 0
    error_message = "user_data may not be empty: it is the instance's configuration."
  }
}

variable "subnet_ids" {
  description = "Subnets of the instances."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids needs at least one subnet."
  }
}

variable "security_group_ids" {
  description = "Security groups of the instances."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "security_group_ids needs at least one group: without, an instance gets the VPC's default group."
  }
}

variable "public_address" {
  description = "Whether an instance gets a public address when it is launched. It needs one where there is no NAT gateway: it calls itself and asks AWS before the Elastic IP is its own."
  type        = bool
  nullable    = false
  default     = false
}

variable "elastic_ip" {
  description = "Elastic IP that an instance associates with itself once it is ready, by its role."
  type        = object({ allocation_id = string })
  default     = null

  validation {
    condition     = var.elastic_ip == null || try(var.scaling.max, 0) == 1
    error_message = "One address is that of one instance: elastic_ip needs scaling.max = 1."
  }
}

variable "scaling" {
  description = "Fewest and most instances. The group is made with the fewest."
  type        = object({ min = number, max = number })
  nullable    = false

  validation {
    condition     = var.scaling.min >= 1 && var.scaling.min <= var.scaling.max
    error_message = "scaling.min must be at least 1, and scaling.max at least scaling.min."
  }
}

variable "target_group_arns" {
  description = "Target groups that the instances register with, by listener. With any, the load balancer's health checks decide whether an instance is replaced; without, EC2's."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition     = length(var.target_group_arns) <= 50
    error_message = "A load balancer has up to 50 listeners (Network Load Balancer quotas)."
  }
}

variable "target_tracking" {
  description = "What the group is scaled to: average percent of CPU, and average bytes per second that one instance receives. Null: it is not scaled."
  type = object({
    cpu_percent      = number
    network_in_bytes = number
  })
  default = null

  validation {
    condition     = var.target_tracking == null || try(var.target_tracking.cpu_percent >= 10 && var.target_tracking.cpu_percent <= 95, false)
    error_message = "target_tracking.cpu_percent must be 10 to 95."
  }
  validation {
    condition     = var.target_tracking == null || try(var.target_tracking.network_in_bytes >= 1000, false)
    error_message = "target_tracking.network_in_bytes must be at least 1000 bytes per second."
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

variable "ready_hook_timeout_s" {
  description = "Seconds that a new instance has to boot and call itself. Then it is given up and another is launched."
  type        = number
  nullable    = false
  default     = 300

  # API reference, PutLifecycleHook: HeartbeatTimeout is 30 to 7200.
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

variable "udp_timeout_s" {
  description = "Seconds after which the connection tracking of the network interface forgets a UDP flow that has been seen in one direction only."
  type        = number
  nullable    = false
  default     = 60

  # Amazon EC2 User Guide, "Security group connection tracking": 30 to 60.
  validation {
    condition     = var.udp_timeout_s >= 30 && var.udp_timeout_s <= 60
    error_message = "udp_timeout_s must be 30 to 60."
  }
}

variable "udp_stream_timeout_s" {
  description = "Seconds after which the connection tracking of the network interface forgets a UDP flow that has been seen in both directions."
  type        = number
  nullable    = false
  default     = 180

  # Amazon EC2 User Guide, "Security group connection tracking": 60 to 180.
  validation {
    condition     = var.udp_stream_timeout_s >= 60 && var.udp_stream_timeout_s <= 180
    error_message = "udp_stream_timeout_s must be 60 to 180."
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

variable "parameter_prefix" {
  description = "Path of the SSM parameters that the instances may read, without a slash at its end."
  type        = string
  nullable    = false

  # Two levels at least: a prefix such as / would open every parameter of the account.
  validation {
    condition     = can(regex("^(/[A-Za-z0-9_.-]+){2,15}$", var.parameter_prefix))
    error_message = "parameter_prefix must have at least two levels and no slash at its end, such as /sipedge/edge/single-ec2."
  }
}

variable "tags" {
  description = "Tags of instances, volumes, network interfaces and the group; `sipedge:edge` and `sipedge:topology` among them."
  type        = map(string)
  nullable    = false

  validation {
    condition     = alltrue([for key in ["sipedge:edge", "sipedge:topology"] : contains(keys(var.tags), key)])
    error_message = "tags must contain sipedge:edge and sipedge:topology: by them an instance is told from those of other edges."
  }
  # Amazon EC2 User Guide, "Tags in instance metadata": a key with a space or slash keeps the instance from being launched.
  validation {
    condition     = alltrue([for key in keys(var.tags) : can(regex("^[A-Za-z0-9+=.,_:@-]{1,128}$", key))])
    error_message = "Tag keys may have letters, digits and + - = . , _ : @ only: they are in the instance's metadata, which takes no others."
  }
}
