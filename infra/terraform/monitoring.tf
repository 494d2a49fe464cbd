# What the functions' logs say, as figures. infra/policy checks that the code still says it in these words.
locals {
  from_functions = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=~\"^apss-(forward|notify|health)$\""

  log_metrics = {
    silent_agents = {
      filter      = "jsonPayload.message=\"an agent is silent\""
      description = "Agents that were found silent."
    }
    failing = {
      filter      = "jsonPayload.message=\"an integration is failing\""
      description = "Rounds of checks, one a minute, in which an integration was failing."
    }
    late_canaries = {
      filter = join("", ["jsonPayload.message=\"an integration is failing\" AND (", join(" OR ", flatten([
        for topic in ["events", "alerts"] : [
          "jsonPayload.${topic}_canary_age_seconds>${3 * local.deadlines.canary}", "jsonPayload.${topic}_canary_age_seconds=-1",
        ]
      ])), ")"])
      description = "Rounds of checks in which a canary did not come out for three of its intervals."
    }
    unreadable_secrets = {
      filter      = "jsonPayload.message=\"a secret cannot be read; its last value stands\""
      description = "Secrets that could not be read."
    }
  }
}

resource "google_logging_metric" "function" {
  for_each = local.log_metrics

  project     = var.project
  name        = "apss/${each.key}"
  description = each.value.description
  filter      = "${local.from_functions} AND ${each.value.filter}"

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
    labels {
      key        = each.key == "silent_agents" ? "agent" : each.key == "unreadable_secrets" ? "secret" : "integration"
      value_type = "STRING"
    }
  }
  label_extractors = each.key == "silent_agents" ? { agent = "EXTRACT(jsonPayload.agent_id)" } : (
    each.key == "unreadable_secrets" ? { secret = "EXTRACT(jsonPayload.secret)" } : { integration = "EXTRACT(jsonPayload.integration)" }
  )
  depends_on = [google_project_service.api]
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
