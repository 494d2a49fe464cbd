# How messages get from the edge to the functions: topics, a push subscription for each way to an integration, and the place of
# what cannot be delivered. It knows of integrations only where their pushes go, and stands on Pub/Sub alone.
resource "google_pubsub_topic" "way" {
  for_each = toset(["events", "alerts"])

  project                    = var.project
  name                       = "apss-${each.value}"
  labels                     = var.labels
  message_retention_duration = "${var.deadlines.keep_topic}s"
}

# What can never be delivered: the functions put it there with the reason, and Pub/Sub what it gave up.
resource "google_pubsub_topic" "dead" {
  project = var.project
  name    = "apss-dead-letters"
  labels  = var.labels
}

# A topic without a subscription loses what is published.
resource "google_pubsub_subscription" "dead" {
  project                    = var.project
  name                       = "apss-dead-letters"
  topic                      = google_pubsub_topic.dead.id
  labels                     = var.labels
  ack_deadline_seconds       = var.deadlines.ack
  message_retention_duration = "${var.deadlines.keep_dead}s"

  expiration_policy {
    ttl = ""
  }
}
