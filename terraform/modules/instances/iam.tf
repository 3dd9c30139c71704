# What an instance may do: be reached by Session Manager and Run Command, read its own secrets, tell its group that it is ready or done, and, where it is alone,
# take the edge's address. The managed policy AmazonSSMManagedInstanceCore is not used: it lets an instance read every parameter of the account.

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name

  arn        = "arn:${local.partition}"
  parameters = "${local.arn}:ssm:${local.region}:${local.account}:parameter${var.parameter_prefix}"

  statements = concat(
    [
      # Amazon Systems Manager User Guide, "Create a custom IAM role for Session Manager". None of these actions knows resources.
      {
        Sid    = "SessionManager"
        Effect = "Allow"
        Action = [
          "ssm:UpdateInstanceInformation",
          "ssmmessages:CreateControlChannel",
          "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel",
          "ssmmessages:OpenDataChannel",
        ]
        Resource = "*"
      },
      {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"]
        Resource = [local.parameters, "${local.parameters}/*"]
      },
      {
        Sid      = "DecryptSecrets"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = "${local.arn}:kms:${local.region}:${local.account}:key/*"
        Condition = {
          StringEquals = { "kms:ViaService" = "ssm.${local.region}.amazonaws.com" }
          StringLike   = { "kms:EncryptionContext:PARAMETER_ARN" = "${local.parameters}/*" }
          "ForAnyValue:StringEquals" = {
            "kms:ResourceAliases" = "alias/aws/ssm"
          }
        }
      },
      # A group's ARN has its id in it, which nobody knows before the group; its name is unique in account and region.
      {
        Sid    = "LifecycleHooks"
        Effect = "Allow"
        Action = [
          "autoscaling:CompleteLifecycleAction",
          "autoscaling:RecordLifecycleActionHeartbeat",
        ]
        Resource = "${local.arn}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${var.name}"
      },
    ],
    [for address in var.elastic_ip[*] : {
      Sid      = "ElasticIp"
      Effect   = "Allow"
      Action   = "ec2:AssociateAddress"
      Resource = "${local.arn}:ec2:${local.region}:${local.account}:elastic-ip/${address.allocation_id}"
    }],
    [for address in var.elastic_ip[*] : {
      Sid    = "ElasticIpToThisEdge"
      Effect = "Allow"
      Action = "ec2:AssociateAddress"
      Resource = [
        "${local.arn}:ec2:${local.region}:${local.account}:instance/*",
        "${local.arn}:ec2:${local.region}:${local.account}:network-interface/*",
      ]
      Condition = {
        StringEquals = {
          "aws:ResourceTag/sipedge:edge"     = var.tags["sipedge:edge"]
          "aws:ResourceTag/sipedge:topology" = var.tags["sipedge:topology"]
        }
      }
    }],
  )
}

resource "aws_iam_role" "this" {
  name        = var.name
  description = "Instances of the SIP edge"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })

  tags = { Name = var.name }
}

resource "aws_iam_role_policy" "this" {
  name = "instance"
  role = aws_iam_role.this.id

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = local.statements
  })
}

resource "aws_iam_instance_profile" "this" {
  name = var.name
  role = aws_iam_role.this.name

  tags = { Name = var.name }

  # An instance reads its secrets as soon as it runs.
  depends_on = [aws_iam_role_policy.this]
}
