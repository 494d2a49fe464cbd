output "topics" {
  description = "events and alerts."
  value       = google_pubsub_topic.way
}

output "dead_letters" {
  description = "The topic and its subscription."
  value       = { topic = google_pubsub_topic.dead, subscription = google_pubsub_subscription.dead }
}

output "subscriptions" {
  description = "By way."
  value       = google_pubsub_subscription.way
}

output "heartbeats" {
  description = "The subscription that brings them."
  value       = google_pubsub_subscription.agents
}
