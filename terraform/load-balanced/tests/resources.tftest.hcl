mock_provider "aws" {
  source = "../mocks"
}

variables {
  name = "bridge"
  region = "us-east-1"
  zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
  public_subnets = { us-east-1a = "10.0.0.0/24", us-east-1b = "10.0.1.0/24", us-east-1c = "10.0.2.0/24" }
  private_subnets = { us-east-1a = "10.0.16.0/20", us-east-1b = "10.0.32.0/20", us-east-1c = "10.0.48.0/20" }
  listeners = [{ port = 5060, protocol = "TCP_UDP" }, { port = 5061, protocol = "TCP" }]
  carrier_ranges = { twilio = ["54.172.60.0/30", "54.244.51.0/30"] }
  image_id = "ami-0123456789abcdef0"
  user_data_template = "tests/user-data.tftpl"
}

run "x" {
  assert {
    condition = length(module.security.instances_id) > 0
    error_message = "x"
  }
}
