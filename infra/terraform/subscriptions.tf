# One for each integration and topic, so that none delays or loses another's messages.
resource "google_pubsub_subscription" "way" {
  for_each = local.ways

  project                    = var.project
  name                       = "apss-${each.key}"
  topic                      = google_pubsub_topic.way[each.value.topic].id
  labels                     = local.labels
  filter                     = local.filters[each.key]
  ack_deadline_seconds       = local.deadlines.ack
  message_retention_duration = "${local.deadlines.keep}s"

  push_config {
    push_endpoint = "${google_cloudfunctions2_function.function[each.value.function].service_config[0].uri}/${each.value.topic}/${each.value.integration}"

    oidc_token {
      service_account_email = google_service_account.push[each.value.function].email
      audience              = google_cloudfunctions2_function.function[each.value.function].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "${local.deadlines.retry[each.value.topic].min}s"
    maximum_backoff = "${local.deadlines.retry[each.value.topic].max}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead.id
    max_delivery_attempts = local.deadlines.attempts
  }

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription_iam_member" "dead_subscriber" {
  for_each = local.ways

  project      = var.project
  subscription = google_pubsub_subscription.way[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# The heartbeats, by which silent agents are found. No filter, because all events count as a sign of life; no dead letters,
# because the other subscriptions have the same messages.
resource "google_pubsub_subscription" "agents" {
  project                    = var.project
  name                       = "apss-events-agents"
  topic                      = google_pubsub_topic.way["events"].id
  labels                     = local.labels
  ack_deadline_seconds       = local.deadlines.ack
  message_retention_duration = "${local.deadlines.keep}s"

  push_config {
    push_endpoint = "${google_cloudfunctions2_function.function["health"].service_config[0].uri}/events/_agents"

    oidc_token {
      service_account_email = google_service_account.push["health"].email
      audience              = google_cloudfunctions2_function.function["health"].service_config[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "${local.deadlines.retry.events.min}s"
    maximum_backoff = "${local.deadlines.retry.events.max}s"
  }

  expiration_policy {
    ttl = ""
  }
}
