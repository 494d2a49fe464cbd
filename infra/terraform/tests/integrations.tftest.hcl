# Each kind switched on; routes as filters; who may read which secret.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project          = "acme-security"
  region           = "europe-west1"
  functions_source = "gs://acme-security-apss/functions/1f3a.zip"
  secret_values    = {}
  secrets          = { key = {} }
}

run "sweetsecurity" {
  command = apply
  variables {
    integrations = [{ kind = "sweetsecurity", enabled = true, endpoint = "https://api.sweet.example",
    api_key = "secret://projects/acme-security/secrets/key/versions/latest" }]
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-sweetsecurity", "events-sweetsecurity"]
    error_message = "it takes events and alerts, by a subscription each"
  }
  assert {
    condition = (module.pubsub.subscriptions["events-sweetsecurity"].push_config[0].push_endpoint == "https://function.example/events/sweetsecurity"
    && module.pubsub.subscriptions["events-sweetsecurity"].topic == module.pubsub.topics["events"].id)
    error_message = "its events do not go where Forward serves them"
  }
  assert {
    condition     = module.pubsub.subscriptions["events-sweetsecurity"].filter == ""
    error_message = "it has no route and yet a filter"
  }
  assert {
    condition     = toset([for a in google_secret_manager_secret_iam_member.function : a.member]) == toset([for s in google_service_account.function : s.member])
    error_message = "not all functions that call it may read its key"
  }
}

run "slack" {
  command = apply
  variables {
    integrations = [{ name = "soc", kind = "slack", enabled = true, route = { min_severity = "HIGH", namespaces = ["shop-*", "pay"] },
    webhook_url = "secret://projects/acme-security/secrets/key/versions/latest" }]
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-soc"]
    error_message = "it takes alerts and nothing else"
  }
  assert {
    condition     = module.pubsub.subscriptions["alerts-soc"].filter == "attributes:\"ce-canary\" OR (NOT attributes.severity = \"INFO\" AND NOT attributes.severity = \"LOW\" AND NOT attributes.severity = \"MEDIUM\" AND (NOT attributes:namespace OR hasPrefix(attributes.namespace, \"shop-\") OR attributes.namespace = \"pay\"))"
    error_message = "its route is not the filter: ${module.pubsub.subscriptions["alerts-soc"].filter}"
  }
  assert {
    condition     = !contains([for a in google_secret_manager_secret_iam_member.function : a.member], google_service_account.function["forward"].member)
    error_message = "Forward may read a key that it does not use"
  }
  assert {
    condition     = local.documents.forward == "[]"
    error_message = "Forward is told of an integration that takes no events"
  }
}

run "pagerduty" {
  command = apply
  variables {
    integrations = [{ kind = "pagerduty", enabled = true, routing_key = "secret://projects/acme-security/secrets/key/versions/7" }]
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-pagerduty"]
    error_message = "it takes alerts and nothing else"
  }
}

run "discord" {
  command = apply
  variables {
    integrations = [{ kind = "discord", enabled = true, webhook_url = "secret://projects/acme-security/secrets/key/versions/latest" }]
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-discord"]
    error_message = "it takes alerts and nothing else"
  }
}

run "email" {
  command = apply
  variables {
    integrations = [{ kind = "email", enabled = true, host = "smtp.example.com", from = "apss@example.com", to = ["a@example.com"],
    username = "apss", password = "secret://projects/acme-security/secrets/key/versions/latest" }]
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-email"]
    error_message = "it takes alerts and nothing else"
  }
}

run "webhook" {
  command = apply
  variables {
    integrations = [{ kind = "webhook", enabled = true, events = true, unsigned = true,
      url = "secret://projects/acme-security/secrets/key/versions/latest",
    secret_headers = { Authorization = "secret://projects/acme-security/secrets/token/versions/latest" } }]
    secrets = { key = {}, token = {} }
  }
  assert {
    condition     = keys(module.pubsub.subscriptions) == ["alerts-webhook", "events-webhook"]
    error_message = "it takes events when its settings say so"
  }
  assert {
    condition     = length(google_secret_manager_secret_iam_member.function) == 6
    error_message = "two secrets, three functions: a secret of a header was forgotten"
  }
}

run "what_does_not_fit_a_filter_is_left_out" {
  command = apply
  variables {
    integrations = [{ name = "many", kind = "slack", enabled = true, webhook_url = "secret://projects/acme-security/secrets/key/versions/latest",
      route = { min_severity = "LOW", clusters = ["*-eu"], rules = ["APSS-1*"],
    namespaces = ["one-rather-long-namespace", "another-rather-long-namespace", "a-third-rather-long-namespace", "a-fourth-rather-long-namespace"] } }]
  }
  assert {
    condition     = module.pubsub.subscriptions["alerts-many"].filter == "attributes:\"ce-canary\" OR (NOT attributes.severity = \"INFO\")"
    error_message = "the filter is ${module.pubsub.subscriptions["alerts-many"].filter}"
  }
}

run "a_disabled_one_is_in_the_document_only" {
  command = apply
  variables {
    integrations = [{ kind = "slack", enabled = false }]
  }
  assert {
    condition     = length(module.pubsub.subscriptions) == 0 && local.documents.notify == "[{\"enabled\":false,\"kind\":\"slack\"}]"
    error_message = "it has a subscription, or is not in the document"
  }
}

run "two_of_one_kind" {
  command = apply
  variables {
    integrations = [
      { name = "one", kind = "slack", enabled = true, webhook_url = "secret://projects/acme-security/secrets/key/versions/latest" },
      { name = "two", kind = "slack", enabled = true, webhook_url = "secret://projects/acme-security/secrets/key/versions/2" },
    ]
  }
  assert {
    condition     = length(module.pubsub.subscriptions) == 2 && length(google_secret_manager_secret_iam_member.function) == 2
    error_message = "want a subscription each, and the secret's grants once"
  }
}

run "an_existing_secret_of_another_project" {
  command = apply
  variables {
    existing_secrets = ["projects/acme-shared/secrets/slack"]
    integrations     = [{ kind = "slack", enabled = true, webhook_url = "secret://projects/acme-shared/secrets/slack/versions/latest" }]
  }
  assert {
    condition     = alltrue([for a in google_secret_manager_secret_iam_member.function : a.secret_id == data.google_secret_manager_secret.existing["projects/acme-shared/secrets/slack"].id])
    error_message = "the grant is on another secret"
  }
}

run "a_value_is_written_and_not_kept" {
  command = apply
  variables {
    secrets       = { key = { version = 3, expires = "2027-06-01T00:00:00Z" } }
    secret_values = { key = "hunter2" }
  }
  assert {
    condition     = google_secret_manager_secret_version.value["key"].secret_data_wo_version == 3 && google_secret_manager_secret_version.value["key"].secret_data == null
    error_message = "the value is not written by a write-only argument"
  }
  assert {
    condition     = google_secret_manager_secret.secret["key"].rotation[0].next_rotation_time == "2027-05-18T00:00:00Z"
    error_message = "the notice does not come 14 days before the end"
  }
}
