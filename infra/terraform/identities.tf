# Who runs what. No key of any of these accounts is ever made.
resource "google_service_account" "function" {
  for_each = local.functions

  project      = var.project
  account_id   = "apss-${each.key}"
  display_name = "APSS function ${each.value.entry_point}"
  depends_on   = [google_project_service.api]
}

# As whom Pub/Sub pushes to a function, and nothing else may.
resource "google_service_account" "push" {
  for_each = local.functions

  project      = var.project
  account_id   = "apss-push-${each.key}"
  display_name = "APSS: Pub/Sub pushes to ${each.value.entry_point}"
  depends_on   = [google_project_service.api]
}

resource "google_service_account" "scheduler" {
  project      = var.project
  account_id   = "apss-scheduler"
  display_name = "APSS: Cloud Scheduler ticks Health"
  depends_on   = [google_project_service.api]
}

resource "google_service_account" "build" {
  project      = var.project
  account_id   = "apss-build"
  display_name = "APSS: builds the functions"
  depends_on   = [google_project_service.api]
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  for_each = local.functions

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.function[each.key].name # the service has the function's name
  role     = "roles/run.invoker"
  member   = google_service_account.push[each.key].member
}

resource "google_cloud_run_v2_service_iam_member" "scheduler" {
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.function["health"].name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_run_v2_service_iam_member" "operators" {
  for_each = var.operators

  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.function["health"].name
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_pubsub_subscription_iam_member" "operators" {
  for_each = var.operators

  project      = var.project
  subscription = module.pubsub.dead_letters.subscription.name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# Pub/Sub makes the tokens of these accounts and of no other.
resource "google_service_account_iam_member" "push_token" {
  for_each = local.functions

  service_account_id = google_service_account.push[each.key].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "function_dead" {
  for_each = local.functions

  project = var.project
  topic   = module.pubsub.dead_letters.topic.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function[each.key].member
}

# Canaries, and alerts about silent agents.
resource "google_pubsub_topic_iam_member" "health" {
  for_each = module.pubsub.topics

  project = var.project
  topic   = each.value.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function["health"].member
}
