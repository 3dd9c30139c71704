terraform {
  # Validations that look at other variables came with 1.9. No backend stands here: sipedge writes backend.tf.json beside this file
  # when the spec names a bucket; by hand it is a file of your own.
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.0"
    }
  }
}

provider "aws" {
  region = var.region

  # The profile `default` is what is taken anyway; left unnamed, credentials of the environment come before it.
  profile = var.profile == "default" ? null : var.profile

  default_tags {
    tags = local.tags
  }
}
