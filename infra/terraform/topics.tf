resource "google_pubsub_topic" "way" {
  for_each = toset(["events", "alerts"])

  project                    = var.project
  name                       = "apss-${each.value}"
  labels                     = local.labels
  message_retention_duration = "${local.deadlines.keep_topic}s"
  depends_on                 = [google_project_service.api]
}

# What can never be delivered: the functions put it there with the reason, and Pub/Sub what it gave up.
resource "google_pubsub_topic" "dead" {
  project    = var.project
  name       = "apss-dead-letters"
  labels     = local.labels
  depends_on = [google_project_service.api]
}

# A topic without a subscription loses what is published.
resource "google_pubsub_subscription" "dead" {
  project                    = var.project
  name                       = "apss-dead-letters"
  topic                      = google_pubsub_topic.dead.id
  labels                     = local.labels
  ack_deadline_seconds       = local.deadlines.ack
  message_retention_duration = "${local.deadlines.keep_dead}s"

  expiration_policy {
    ttl = ""
  }
}

# Who wants the dead letters of Pub/Sub's own needs both of these, this and the subscriber in subscriptions.tf.
resource "google_pubsub_topic_iam_member" "dead_publisher" {
  project = var.project
  topic   = google_pubsub_topic.dead.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}
