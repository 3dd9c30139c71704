variable "name" {
  description = "Name of the dashboard, prefix of the others."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,56}$", var.name))
    error_message = "name may have up to 56 letters, digits, hyphens and underscores."
  }
}

variable "group_name" {
  description = "Autoscaling group, with its metrics switched on."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.group_name) > 0
    error_message = "group_name may not be empty."
  }
}

variable "load_balancer" {
  description = "The load balancer and its target groups by listener, as CloudWatch names them. Null: a group of one instance without load balancer, which has five alarms of its own."
  type = object({
    arn_suffix    = string
    target_groups = map(string)
  })
  default = null

  validation {
    condition     = var.load_balancer == null || length(try(var.load_balancer.target_groups, {})) > 0
    error_message = "load_balancer needs at least one target group."
  }
}

variable "min" {
  description = "Instances that the group has at least."
  type        = number
  nullable    = false
  default     = 2

  validation {
    condition     = var.min >= 1
    error_message = "min must be at least 1."
  }
}

variable "cpu_percent" {
  description = "Percent of CPU above which an alarm goes off."
  type        = number
  nullable    = false
  default     = 80

  validation {
    condition     = var.cpu_percent >= 1 && var.cpu_percent <= 100
    error_message = "cpu_percent must be 1 to 100."
  }
}

variable "desired" {
  description = "Desired capacity from which on an alarm tells that the group can hardly grow. Null: no such alarm."
  type        = number
  default     = null

  validation {
    condition     = var.desired == null || try(var.desired >= 1, false)
    error_message = "desired must be at least 1."
  }
}

variable "notify" {
  description = "Who is told: mail addresses (`email`), and services that take an HTTPS request (`https`), such as PagerDuty."
  type = list(object({
    protocol = string
    endpoint = string
  }))
  nullable = false
  default  = []

  validation {
    condition = alltrue([for who in var.notify :
      who.protocol == "email" ? can(regex("^[^@[:space:]]+@[^@[:space:]]+$", who.endpoint)) : who.protocol == "https" ? startswith(who.endpoint, "https://") : false
    ])
    error_message = "Each of notify must be an email with a mail address, or https with an address that begins with https://."
  }
}

variable "chatbot" {
  description = "Slack channel that is told. The workspace must have been authorised in the console before."
  type = object({
    slack_workspace_id = string
    slack_channel_id   = string
  })
  default = null

  validation {
    condition     = var.chatbot == null || try(can(regex("^[A-Z0-9]+$", var.chatbot.slack_workspace_id)) && can(regex("^[A-Z0-9]+$", var.chatbot.slack_channel_id)), false)
    error_message = "chatbot takes ids, not names: a workspace such as T0123ABCD and a channel such as C0123ABCD."
  }
}
