# The carrier bridge of examples/carrier-bridge.yaml behind a load balancer. `sipedge plan load-balanced --target aws --out plan` writes the same
# as plan/load-balanced/load-balanced.auto.tfvars.json, and the user data beside it.

name   = "twilio-bridge"
region = "us-east-1"
tags   = { team = "voice" }

image_id           = "ami-0123456789abcdef0" # of the appliance, in this region
instance_type      = "t3.small"
user_data_template = "../examples/load-balanced/user-data.tftpl"

zones           = ["us-east-1a", "us-east-1b", "us-east-1c"]
vpc_cidr        = "10.0.0.0/16"
public_subnets  = { us-east-1a = "10.0.0.0/24", us-east-1b = "10.0.1.0/24", us-east-1c = "10.0.2.0/24" }
private_subnets = { us-east-1a = "10.0.16.0/20", us-east-1b = "10.0.32.0/20", us-east-1c = "10.0.48.0/20" }

# Two NAT gateway addresses: 110,000 ports to one destination.
egress = { gateways = "one", addresses = 2 }

listeners = [{ port = 5060, protocol = "TCP_UDP" }]
carrier_ranges = {
  twilio = [
    "54.172.60.0/30", "54.244.51.0/30", "54.171.127.192/30", "35.156.191.128/30",
    "54.65.63.192/30", "54.169.127.128/30", "54.252.254.64/30", "177.71.206.192/30",
  ]
}

scaling         = { min = 2, max = 10 }
target_tracking = { cpu_percent = 70, network_in_bytes = 50000000 }

alarms = { notify = [{ protocol = "email", endpoint = "ops@example.com" }] }
dns    = { zone = "example.com.", name = "sip.example.com" }
