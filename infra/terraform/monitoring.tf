# What the functions' logs say, and what that is called. infra/policy checks that the code still says it in these words.
locals {
  from_functions = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=~\"^apss-(forward|notify|health)$\""

  log_lines = {
    failing = {
      name   = "an integration is failing"
      filter = "jsonPayload.message=\"an integration is failing\""
      label  = "integration"
      field  = "integration"
      doc    = "Its receiver fails its checks or refuses our key: it was found so in a round of checks, one a minute. `apssctl status` says why."
    }
    late_canaries = {
      name = "a canary did not come out"
      filter = join("", ["jsonPayload.message=\"an integration is failing\" AND (", join(" OR ", flatten([
        for topic in ["events", "alerts"] : [
          "jsonPayload.${topic}_canary_age_seconds>${3 * local.deadlines.canary}", "jsonPayload.${topic}_canary_age_seconds=-1",
        ]
      ])), ")"])
      label = "integration"
      field = "integration"
      doc   = "A marked message did not reach the receiver for ${3 * local.deadlines.canary / 60} minutes: the way is broken somewhere. `apssctl test NAME` tries its last part."
    }
    silent_agents = {
      name   = "an agent is silent"
      filter = "jsonPayload.message=\"an agent is silent\""
      label  = "agent"
      field  = "agent_id"
      doc    = "It sent no heartbeat for three of its intervals and did not say that it ends: somebody killed it, its node is gone, or it cannot publish."
    }
    unreadable_secrets = {
      name   = "a secret cannot be read"
      filter = "jsonPayload.message=\"a secret cannot be read; its last value stands\""
      label  = "secret"
      field  = "secret"
      doc    = "It has no version, is disabled, or its grant is gone. The last value stands for an hour. `gcloud secrets versions list NAME`."
    }
  }
}

# The same as figures, for the dashboard.
resource "google_logging_metric" "function" {
  for_each = local.log_lines

  project     = var.project
  name        = "apss/${each.key}"
  description = "How often the functions' logs say: ${each.value.name}."
  filter      = "${local.from_functions} AND ${each.value.filter}"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key        = each.value.label
      value_type = "STRING"
    }
  }
  label_extractors = { (each.value.label) = "EXTRACT(jsonPayload.${each.value.field})" }
  depends_on       = [google_project_service.api]
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.notify.emails

  project      = var.project
  type         = "email"
  display_name = "APSS: ${each.value}"
  labels       = { email_address = each.value }
  depends_on   = [google_project_service.api]
}

locals {
  channels = concat([for c in google_monitoring_notification_channel.email : c.id], tolist(var.notify.channels))
}
