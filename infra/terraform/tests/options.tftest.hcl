# What is made when it is asked for.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project          = "acme-security"
  region           = "europe-west1"
  functions_source = "gs://acme-security-apss/functions/1f3a.zip"
  secret_values    = {}
}

run "archives" {
  command = apply
  variables {
    archive = { alerts = true, events = true }
  }
  assert {
    condition     = google_pubsub_subscription.archive_alerts[0].bigquery_config[0].table == "acme-security.apss.alerts" && google_pubsub_subscription.archive_events[0].cloud_storage_config[0].bucket == "acme-security-apss-archive"
    error_message = "the subscriptions do not write to the archives"
  }
  assert {
    condition     = contains(keys(google_project_service.api), "bigquery.googleapis.com")
    error_message = "the service is not switched on"
  }
}

run "operators" {
  command = apply
  variables {
    operators      = ["group:soc@example.com"]
    health_ingress = "ALLOW_ALL"
  }
  assert {
    condition = (google_cloud_run_v2_service_iam_member.operators["group:soc@example.com"].name == "apss-health"
    && [for f in google_cloudfunctions2_function.function : f.name if f.service_config[0].ingress_settings == "ALLOW_ALL"] == ["apss-health"])
    error_message = "operators are let in to more than Health"
  }
}

run "clusters_of_other_projects" {
  command = apply
  variables {
    cluster_projects = { "acme-prod" = "210987654321" }
    edge             = { namespace = "security" }
  }
  assert {
    condition     = [for g in google_pubsub_topic_iam_member.edge : g.member if strcontains(g.member, "acme-security")] == [] && length(google_pubsub_topic_iam_member.edge) == 6
    error_message = "who may publish is not of the clusters' project"
  }
}

run "people_and_money" {
  command = apply
  variables {
    notify = { emails = ["oncall@example.com"], channels = ["projects/acme-security/notificationChannels/12"] }
    budget = { billing_account = "012345-6789AB-CDEF01", amount = 50 }
  }
  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.threshold : length(p.notification_channels) == 2])
    error_message = "an alert policy tells nobody"
  }
  assert {
    condition     = google_billing_budget.project[0].amount[0].specified_amount[0].units == "50"
    error_message = "there is no budget"
  }
}

run "builds" {
  command = apply
  variables {
    repository = { owner = "acme", name = "apss" }
  }
  assert {
    condition     = google_cloudbuild_trigger.push[0].filename == "cloudbuild.yaml" && google_cloudbuild_trigger.push[0].github[0].push[0].branch == "^main$"
    error_message = "pushes to main are not built"
  }
}
