# The appliance as an AMI, made on a builder instance by the roles of ../ansible. `sipedge image build` needs no builder and tries the image
# before it is published; this template is for those who make all their images with Packer.

packer {
  required_version = ">= 1.9.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0, < 2.0.0"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = ">= 1.1.1, < 2.0.0"
    }
  }
}

locals {
  name = "${var.name}-${var.release}-${formatdate("YYYYMMDDhhmmss", timestamp())}"

  # The same keys as on images that `sipedge image publish` makes.
  tags = merge(var.tags, {
    Name                = local.name
    "sipedge:edge"      = var.name
    "sipedge:version"   = var.release
    "sipedge:commit"    = var.git_commit
    "sipedge:spec-hash" = var.spec_hash
  })
}

source "amazon-ebs" "debian" {
  region        = var.region
  profile       = var.profile
  instance_type = var.instance_type
  subnet_id     = var.subnet_id

  source_ami_filter {
    # Debian's own account (wiki.debian.org/Cloud/AmazonEC2Image).
    owners      = ["136693071363"]
    most_recent = true
    filters = {
      name                = "debian-12-${var.architecture}-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  communicator              = "ssh"
  ssh_username              = "admin"
  ssh_clear_authorized_keys = true
  temporary_key_pair_type   = "ed25519"

  # The builder itself is asked by IMDSv2 alone, and so is every instance of the image.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  imds_support = "v2.0"
  ena_support  = true

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = var.volume_gib
    volume_type           = "gp3"
    encrypted             = var.encrypted
    delete_on_termination = true
  }

  ami_name        = local.name
  ami_description = "SIP edge ${var.name}, sipedge ${var.release}"
  tags            = local.tags
  snapshot_tags   = local.tags
  run_tags        = merge(local.tags, { Name = "${local.name}-builder" })
  run_volume_tags = local.tags
}

build {
  sources = ["source.amazon-ebs.debian"]

  provisioner "ansible" {
    playbook_file = "${path.root}/../ansible/image.yml"
    user          = "admin"
    # Ansible comes by its own connections; Packer's adapter in between needs an old key type.
    use_proxy        = false
    ansible_env_vars = ["ANSIBLE_CONFIG=${path.root}/../ansible/ansible.cfg"]
    extra_arguments = ["--extra-vars", jsonencode(merge({
      sipedge_proxy_binary       = abspath(var.proxy_binary)
      sipedge_health_sources     = var.health_sources
      sipedge_ssm_agent_deb      = var.ssm_agent_deb
      sipedge_ssm_agent_checksum = var.ssm_agent_checksum
      # The builder is reached by SSH until the image is made; on its instances it never starts.
      sipedge_ssh = "disabled"
      # Debian's AMI has a writable root: updates can be wanted here.
      sipedge_automatic_updates = var.automatic_updates
    }, jsondecode(var.settings)))]
  }

  post-processor "manifest" {
    output     = "manifest.json"
    strip_path = true
  }
}
