# One bucket for each environment, and who may read them.
terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

variable "environments" {
  type    = list(string)
  default = ["staging", "production"]
}

variable "retention_days" {
  type        = number
  description = "Days an old version of an object is kept"
  default     = 30
}

locals {
  names = { for name in var.environments : name => "reports-${name}" }
  tags  = merge({ owner = "data" }, var.retention_days > 90 ? { long = "yes" } : {})
}

resource "aws_s3_bucket" "reports" {
  for_each      = local.names
  bucket        = each.value
  force_destroy = each.key != "production"
  tags          = local.tags
}

resource "aws_s3_bucket_lifecycle_configuration" "reports" {
  for_each = aws_s3_bucket.reports
  bucket   = each.value.id

  rule {
    id     = "expire"
    status = "Enabled"

    noncurrent_version_expiration {
      noncurrent_days = max(var.retention_days, 7) + 1
    }
  }
}

output "buckets" {
  value = [for bucket in aws_s3_bucket.reports : upper(bucket.id)]
}
