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
  assert {
    condition     = google_bigquery_table.alerts[0].deletion_protection && !google_storage_bucket.archive[0].force_destroy
    error_message = "an archive goes with what it holds, and nobody said so"
  }
}

run "archives_that_may_go" {
  command = apply
  variables {
    archive = { alerts = true, events = true, protected = false }
  }
  assert {
    condition     = !google_bigquery_table.alerts[0].deletion_protection && google_storage_bucket.archive[0].force_destroy
    error_message = "an archive cannot be removed although it may"
  }
}

# The grants to Google's agents are by the project's number: were it unknown, each would be planned to be made anew.
run "a_later_service_leaves_the_grants" {
  command = plan
  variables {
    budget = { billing_account = "012345-6789AB-CDEF01", amount = 50 }
  }
  assert {
    condition     = google_service_account_iam_member.push_token["forward"].member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "the grant is on another"
  }
}

run "null_is_the_default" {
  command = apply
  variables {
    instances    = null
    integrations = null
    archive      = null
    edge         = null
    operators    = null
  }
  assert {
    condition     = google_cloudfunctions2_function.function["health"].service_config[0].max_instance_count == 10
    error_message = "null is not the default"
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
    condition     = [for g in google_pubsub_topic_iam_member.edge : g.member if strcontains(g.member, "acme-security")] == [] && length(google_pubsub_topic_iam_member.edge) == 5
    error_message = "who may publish is not of the clusters' project, or is not agent and relay on both topics and the webhook on that of events"
  }
}

run "nodes_pull" {
  command = apply
  variables {
    node_service_accounts = ["gke@acme-prod.iam.gserviceaccount.com"]
  }
  assert {
    condition = (google_artifact_registry_repository_iam_member.nodes["gke@acme-prod.iam.gserviceaccount.com"].role == "roles/artifactregistry.reader"
    && google_artifact_registry_repository_iam_member.nodes["gke@acme-prod.iam.gserviceaccount.com"].member == "serviceAccount:gke@acme-prod.iam.gserviceaccount.com")
    error_message = "nodes cannot pull the images"
  }
}

run "people_and_money" {
  command = apply
  variables {
    notify = { emails = ["oncall@example.com"], channels = ["projects/acme-security/notificationChannels/12"] }
    budget = { billing_account = "012345-6789AB-CDEF01", amount = 50 }
  }
  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.trouble : length(p.notification_channels) == 2])
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
