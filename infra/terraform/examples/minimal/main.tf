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

output "next" {
  description = "What to run next."
  value       = { secrets = module.apss.secrets_to_fill, helm = module.apss.helm_command }
}
