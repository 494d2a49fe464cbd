# One for each integration and topic, so that none delays or loses another's messages.
resource "google_pubsub_subscription" "way" {
  for_each = var.ways

  project                    = var.project
  name                       = "apss-${each.key}"
  topic                      = google_pubsub_topic.way[each.value.topic].id
  labels                     = var.labels
  filter                     = each.value.filter
  ack_deadline_seconds       = var.deadlines.ack
  message_retention_duration = "${var.deadlines.keep}s"

  push_config {
    push_endpoint = "${var.functions[each.value.function].uri}/${each.value.topic}/${each.value.integration}"

    oidc_token {
      service_account_email = var.functions[each.value.function].pusher
      audience              = var.functions[each.value.function].uri
    }
  }

  retry_policy {
    minimum_backoff = "${var.deadlines.retry[each.value.topic].min}s"
    maximum_backoff = "${var.deadlines.retry[each.value.topic].max}s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead.id
    max_delivery_attempts = var.deadlines.attempts
  }

  expiration_policy {
    ttl = ""
  }
}

# The heartbeats, by which silent agents are found: messages that hold one say so in an attribute. No dead letters, because the
# other subscriptions have the same messages.
resource "google_pubsub_subscription" "agents" {
  project                    = var.project
  name                       = "apss-events-agents"
  topic                      = google_pubsub_topic.way["events"].id
  labels                     = var.labels
  filter                     = "attributes:heartbeats OR attributes:\"ce-canary\""
  ack_deadline_seconds       = var.deadlines.ack
  message_retention_duration = "${var.deadlines.keep}s"

  push_config {
    push_endpoint = "${var.functions["health"].uri}/events/_agents"

    oidc_token {
      service_account_email = var.functions["health"].pusher
      audience              = var.functions["health"].uri
    }
  }

  retry_policy {
    minimum_backoff = "${var.deadlines.retry.events.min}s"
    maximum_backoff = "${var.deadlines.retry.events.max}s"
  }

  expiration_policy {
    ttl = ""
  }
}
