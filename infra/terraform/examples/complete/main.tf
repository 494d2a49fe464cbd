# Everything: each kind of integration, from a document in a file; archives, alerts to people, a budget, builds.
module "apss" {
  source = "../.."

  project = var.project
  region  = var.region
  labels  = { team = "security" }

  integrations = yamldecode(templatefile("${path.module}/integrations.yaml", { project = var.project }))

  secrets = {
    sweet-security-key = { expires = "2027-06-01T00:00:00Z" }
    slack-bot          = {}
    pagerduty          = { version = 1 } # from TF_VAR_secret_values
    siem-url           = {}
    siem-signing       = {}
    smtp-password      = {}
  }
  secret_values = var.secret_values

  instances      = { min = 1, max = 20 }
  operators      = ["group:soc@example.com"]
  health_ingress = "ALLOW_ALL"

  node_service_accounts = ["123456789012-compute@developer.gserviceaccount.com", "gke-nodes@acme-prod.iam.gserviceaccount.com"]

  cluster_projects = { (var.project) = "123456789012", "acme-prod" = "210987654321" }
  archive          = { alerts = true, events = true, delete_days = 90 }
  notify           = { emails = ["oncall@example.com"] }
  budget           = { billing_account = "012345-6789AB-CDEF01", amount = 50, currency = "EUR" }
  repository       = { owner = "apss-sensor", name = "apss" }
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

variable "secret_values" {
  description = "Values of the secrets that have a version: export TF_VAR_secret_values='{\"pagerduty\":\"...\"}'."
  type        = map(string)
  ephemeral   = true
  sensitive   = true
}

output "secrets_to_fill" {
  description = "What to run next: it asks for each secret's value."
  value       = module.apss.secrets_to_fill
}

output "helm_command" {
  description = "What to run in each cluster then: terraform output -raw helm_command."
  value       = module.apss.helm_command
}

output "health_url" {
  description = "For apssctl: APSS_URL."
  value       = module.apss.health_url
}

output "integrations" {
  description = "The document that the functions read."
  value       = module.apss.integrations
}

output "subscriptions" {
  description = "With their filters."
  value       = module.apss.subscriptions
}
