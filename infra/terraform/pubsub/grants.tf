# What Pub/Sub itself needs to put away what it gives up: to publish there, and to acknowledge here. With one of the two
# alone such messages are delivered for ever.
resource "google_pubsub_topic_iam_member" "dead_publisher" {
  project = var.project
  topic   = google_pubsub_topic.dead.name
  role    = "roles/pubsub.publisher"
  member  = var.agent
}

resource "google_pubsub_subscription_iam_member" "dead_subscriber" {
  for_each = var.ways

  project      = var.project
  subscription = google_pubsub_subscription.way[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = var.agent
}
