# The least: one channel that is told of what is HIGH or worse. The channel's webhook is added by a person afterwards:
#
#   gcloud secrets versions add slack-webhook --data-file=-
module "apss" {
  source = "../.."

  project = var.project
  region  = var.region

  secrets = { slack-webhook = {} }
  integrations = [{
    name        = "soc-slack"
    kind        = "slack"
    enabled     = true
    route       = { min_severity = "HIGH" }
    webhook_url = "secret://projects/${var.project}/secrets/slack-webhook/versions/latest"
  }]
}

provider "google" {
  project = var.project
  region  = var.region
}

variable "project" {
  description = "Id of the Google Cloud project."
  type        = string
}

variable "region" {
  description = "For instance europe-west1."
  type        = string
}

output "secrets_to_fill" {
  description = "What to run next: it asks for each secret's value."
  value       = module.apss.secrets_to_fill
}

output "helm_command" {
  description = "What to run in each cluster then: terraform output -raw helm_command."
  value       = module.apss.helm_command
}
