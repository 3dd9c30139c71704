# The carrier bridge of examples/carrier-bridge.yaml on one instance. `sipedge plan single-ec2 --target aws --out plan` writes the same
# as plan/single-ec2/single-ec2.auto.tfvars.json, and the user data beside it.

name   = "twilio-bridge"
region = "us-east-1"
tags   = { team = "voice" }

image_id           = "ami-0123456789abcdef0" # of the appliance, in this region
instance_type      = "t3.small"
user_data_template = "../examples/single-ec2/user-data.tftpl"

zones          = ["us-east-1a"]
vpc_cidr       = "10.0.0.0/16"
public_subnets = { us-east-1a = "10.0.0.0/24" }

listeners = [{ port = 5060, protocol = "TCP_UDP" }]
carrier_ranges = {
  twilio = [
    "54.172.60.0/30", "54.244.51.0/30", "54.171.127.192/30", "35.156.191.128/30",
    "54.65.63.192/30", "54.169.127.128/30", "54.252.254.64/30", "177.71.206.192/30",
  ]
}

alarms = { notify = [{ protocol = "email", endpoint = "ops@example.com" }] }
