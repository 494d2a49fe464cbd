output "helm_command" {
  description = "What to run next, with a cluster's credentials at hand. CLUSTER and TAG are yours; a chart that a build has packaged names its images itself, by digest, and needs neither tag nor allowTag."
  value       = <<-EOT
    helm upgrade --install apss infra/helm/apss \
      --namespace ${var.edge.namespace} --create-namespace \
      --set cluster=CLUSTER \
      --set project=${var.project} \
      --set topics.events=${module.pubsub.topics["events"].name} \
      --set topics.alerts=${module.pubsub.topics["alerts"].name} \
      --set images.registry=${local.registry} \
      --set images.allowTag=true --set images.tag=TAG
  EOT
}

output "secrets_to_fill" {
  description = "Secrets whose values a person adds."
  value = [
    for name, s in var.secrets : "gcloud secrets versions add ${name} --project ${var.project} --data-file=-" if s.version == null
  ]
}

output "health_url" {
  description = "Of the function Health, for apssctl: APSS_URL."
  value       = google_cloudfunctions2_function.function["health"].service_config[0].uri
}

output "integrations" {
  description = "The document that the functions read."
  value       = local.documents.notify
}

output "environment" {
  description = "The variables of each function."
  value       = local.environment
}

output "subscriptions" {
  description = "The subscription of each way to an integration, with its filter."
  value       = { for way, s in module.pubsub.subscriptions : way => { name = s.name, filter = local.filters[way] } }
}

output "registry" {
  description = "Where images go."
  value       = local.registry
}

locals {
  registry = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}"
}
