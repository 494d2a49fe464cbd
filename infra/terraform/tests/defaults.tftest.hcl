# What is made when nothing but the two required variables is given.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project          = "acme-security"
  region           = "europe-west1"
  functions_source = "gs://acme-security-apss/functions/1f3a.zip"
  secret_values    = {}
}

run "nothing_is_enabled" {
  command = apply

  assert {
    condition     = length(module.pubsub.subscriptions) == 0 && length(google_secret_manager_secret.secret) == 0
    error_message = "there are subscriptions or secrets of integrations, and none is enabled"
  }
  assert {
    condition     = [for t in module.pubsub.topics : t.name] == ["apss-alerts", "apss-events"] && module.pubsub.dead_letters.topic.name == "apss-dead-letters"
    error_message = "the topics have not the names that the agent publishes to"
  }
  assert {
    condition     = toset(keys(google_cloudfunctions2_function.function)) == toset(["forward", "notify", "health"])
    error_message = "not the three functions"
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.function : f.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "a function can be reached from outside"
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.function : f.service_config[0].max_instance_request_concurrency > 1])
    error_message = "a function takes one push at a time, so that none can wait for others"
  }
  assert {
    condition     = module.pubsub.heartbeats.push_config[0].push_endpoint == "https://function.example/events/_agents"
    error_message = "the heartbeats do not go to Health"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.edge["acme-security/agent/alerts"].member == "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/acme-security.svc.id.goog/subject/ns/apss-system/sa/apss-agent"
    error_message = "the agent is not who publishes alerts"
  }
  assert {
    condition     = length(google_pubsub_subscription.archive_alerts) + length(google_storage_bucket.archive) + length(google_billing_budget.project) + length(google_cloudbuild_trigger.push) == 0
    error_message = "something optional is made by default"
  }
  assert {
    condition     = strcontains(output.helm_command, "helm upgrade --install apss") && strcontains(output.helm_command, "project=acme-security")
    error_message = "the outputs do not say what to run next"
  }
}

run "an_uploaded_zip_is_used" {
  command = apply

  assert {
    condition = (google_cloudfunctions2_function.function["notify"].build_config[0].source[0].storage_source[0].bucket == "acme-security-apss"
    && google_cloudfunctions2_function.function["notify"].build_config[0].source[0].storage_source[0].object == "functions/1f3a.zip")
    error_message = "the function is not built from the object that was named"
  }
}

run "a_zip_is_uploaded_under_its_sum" {
  command = apply

  variables {
    functions_source = "tests/testdata/functions.zip"
  }
  assert {
    condition     = google_storage_bucket_object.source[0].name == "functions/${filesha256("tests/testdata/functions.zip")}.zip"
    error_message = "the object's name does not say what is in it"
  }
}
