variable "name" {
  description = "Name of the edge, as in the spec: lower-case letters, digits and hyphens."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "The name has to be 1 to 40 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "release" {
  description = "Version of sipedge-proxy in the image, as `sipedge-proxy --version` prints it."
  type        = string
}

variable "git_commit" {
  description = "Commit that the proxy was built from; a tag of the image."
  type        = string
  default     = "unknown"
}

variable "spec_hash" {
  description = "Hash of the spec whose ports the image admits; a tag of the image."
  type        = string
  default     = "unknown"
}

variable "proxy_binary" {
  description = "The static proxy for the image's architecture: cargo build --release --package sipedge-proxy --target x86_64-unknown-linux-musl."
  type        = string
  default     = "../target/x86_64-unknown-linux-musl/release/sipedge-proxy"
}

variable "region" {
  description = "Region in which the image is made and kept."
  type        = string
}

variable "profile" {
  description = "Profile of the AWS configuration. Empty: the environment's credentials."
  type        = string
  default     = ""
}

variable "architecture" {
  description = "Architecture in the names of Debian's images: amd64 or arm64. It has to fit instance_type and proxy_binary."
  type        = string
  default     = "amd64"

  validation {
    condition     = contains(["amd64", "arm64"], var.architecture)
    error_message = "The architecture has to be amd64 or arm64."
  }
}

variable "instance_type" {
  description = "Type of the builder instance. It says nothing of the types that the image runs on."
  type        = string
  default     = "t3.small"
}

variable "subnet_id" {
  description = "Subnet of the builder instance, from which it reaches Debian's mirror. Empty: the default VPC's."
  type        = string
  default     = ""
}

variable "volume_gib" {
  description = "Size of the root volume, in GiB. Debian's image has 8."
  type        = number
  default     = 8

  validation {
    condition     = var.volume_gib >= 8
    error_message = "Debian's image needs 8 GiB at least."
  }
}

variable "encrypted" {
  description = "Whether the root volume is encrypted, by the account's default key. An encrypted image cannot be public."
  type        = bool
  default     = true
}

variable "health_sources" {
  description = "Ranges that may ask for /healthz, /readyz and /metrics: the VPC's."
  type        = list(string)
  default     = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
}

variable "ssm_agent_deb" {
  description = "The SSM agent, the only way in: a .deb on this machine, or a URL. Empty: none, and nobody gets into an instance."
  type        = string
  default     = "https://s3.amazonaws.com/ec2-downloads-windows/SSMAgent/latest/debian_amd64/amazon-ssm-agent.deb"
}

variable "ssm_agent_checksum" {
  description = "Its checksum, such as sha256:…. Empty: TLS alone vouches for a download."
  type        = string
  default     = ""
}

variable "automatic_updates" {
  description = "Whether instances take Debian's security updates by themselves, without reboots."
  type        = bool
  default     = true
}

variable "settings" {
  description = "Further settings of ../ansible/group_vars/all.yml as a JSON object, which win over those above, such as {\"sipedge_log\": \"json\"}."
  type        = string
  default     = "{}"

  validation {
    condition     = can(jsondecode(var.settings))
    error_message = "The settings have to be a JSON object."
  }
}

variable "tags" {
  description = "Further tags of the image, its snapshot and the builder."
  type        = map(string)
  default     = {}
}
