# Wrong variables are refused, each by the variable that is at fault. infra/policy reads the sentences.
mock_provider "google" {}

variables {
  project          = "acme-security"
  region           = "europe-west1"
  functions_source = "gs://acme-security-apss/functions/1f3a.zip"
}

run "project_number" {
  command = plan
  variables {
    project = "123456789012"
  }
  expect_failures = [var.project]
}

run "zone_for_region" {
  command = plan
  variables {
    region = "europe-west1-b"
  }
  expect_failures = [var.region]
}

run "misspelt_region" {
  command = plan
  variables {
    region = "europe-wset1"
  }
  expect_failures = [var.region]
}

run "region_of_another_cloud" {
  command = plan
  variables {
    region = "eu-west-1"
  }
  expect_failures = [var.region]
}

run "project_name" {
  command = plan
  variables {
    project = "Acme Security"
  }
  expect_failures = [var.project]
}

run "nodes" {
  command = plan
  variables {
    node_service_accounts = ["default"]
  }
  expect_failures = [var.node_service_accounts]
}

run "half_an_instance" {
  command = plan
  variables {
    instances = { min = 0.5 }
  }
  expect_failures = [var.instances]
}

run "no_zip" {
  command = plan
  variables {
    functions_source = "missing.zip"
  }
  expect_failures = [var.functions_source]
}

run "old_go" {
  command = plan
  variables {
    functions_runtime = "go125"
  }
  expect_failures = [var.functions_runtime]
}

run "instances" {
  command = plan
  variables {
    instances = { min = 3, max = 2 }
  }
  expect_failures = [var.instances]
}

run "quiet_logs" {
  command = plan
  variables {
    log_level = "ERROR"
  }
  expect_failures = [var.log_level]
}

run "collector" {
  command = plan
  variables {
    otlp_endpoint = "collector"
  }
  expect_failures = [var.otlp_endpoint]
}

run "ingress" {
  command = plan
  variables {
    health_ingress = "PUBLIC"
  }
  expect_failures = [var.health_ingress]
}

run "everybody_is_no_operator" {
  command = plan
  variables {
    operators = ["allUsers"]
  }
  expect_failures = [var.operators]
}

run "labels" {
  command = plan
  variables {
    labels = { Team = "soc" }
  }
  expect_failures = [var.labels]
}

run "namespace" {
  command = plan
  variables {
    edge = { namespace = "APSS" }
  }
  expect_failures = [var.edge]
}

run "cluster_number" {
  command = plan
  variables {
    cluster_projects = { acme-prod = "acme" }
  }
  expect_failures = [var.cluster_projects]
}

run "archive_days" {
  command = plan
  variables {
    archive = { delete_days = 0 }
  }
  expect_failures = [var.archive]
}

run "email" {
  command = plan
  variables {
    notify = { emails = ["oncall"] }
  }
  expect_failures = [var.notify]
}

run "channel" {
  command = plan
  variables {
    notify = { channels = ["12"] }
  }
  expect_failures = [var.notify]
}

run "budget" {
  command = plan
  variables {
    budget = { billing_account = "mine", amount = 50 }
  }
  expect_failures = [var.budget]
}

run "repository" {
  command = plan
  variables {
    repository = { owner = "a b", name = "apss" }
  }
  expect_failures = [var.repository]
}

run "secret_name" {
  command = plan
  variables {
    secrets = { "a/b" = {} }
  }
  expect_failures = [var.secrets]
}

run "secret_version" {
  command = plan
  variables {
    secrets = { key = { version = 0 } }
  }
  expect_failures = [var.secrets]
}

run "secret_expires" {
  command = plan
  variables {
    secrets = { key = { expires = "soon" } }
  }
  expect_failures = [var.secrets]
}

run "existing_secret" {
  command = plan
  variables {
    existing_secrets = ["slack"]
  }
  expect_failures = [var.existing_secrets]
}

run "no_list" {
  command = plan
  variables {
    integrations = { kind = "slack" }
  }
  expect_failures = [var.integrations]
}

run "a_text" {
  command = plan
  variables {
    integrations = "slack"
  }
  expect_failures = [var.integrations]
}

run "unknown_kind" {
  command = plan
  variables {
    integrations = [{ kind = "slak" }]
  }
  expect_failures = [var.integrations]
}

run "no_kind" {
  command = plan
  variables {
    integrations = [{ name = "soc" }]
  }
  expect_failures = [var.integrations]
}

run "bad_name" {
  command = plan
  variables {
    integrations = [{ kind = "slack", name = "SOC Slack" }]
  }
  expect_failures = [var.integrations]
}

run "taken_name" {
  command = plan
  variables {
    integrations = [{ kind = "slack", name = "agents" }]
  }
  expect_failures = [var.integrations]
}

run "same_name" {
  command = plan
  variables {
    integrations = [{ kind = "slack" }, { kind = "slack" }]
  }
  expect_failures = [var.integrations]
}

run "unknown_key" {
  command = plan
  variables {
    integrations = [{ kind = "slack", chanel = "C1" }]
  }
  expect_failures = [var.integrations]
}

run "key_of_local_runs" {
  command = plan
  variables {
    integrations = [{ kind = "slack", api_url = "http://127.0.0.1" }]
  }
  expect_failures = [var.integrations]
}

run "unknown_key_of_route" {
  command = plan
  variables {
    integrations = [{ kind = "slack", route = { severity = "HIGH" } }]
  }
  expect_failures = [var.integrations]
}

run "severity" {
  command = plan
  variables {
    integrations = [{ kind = "slack", route = { min_severity = "HIHG" } }]
  }
  expect_failures = [var.integrations]
}

run "type" {
  command = plan
  variables {
    integrations = [{ kind = "slack", route = { types = ["files_*"] } }]
  }
  expect_failures = [var.integrations]
}

run "nothing_required" {
  command = plan
  variables {
    integrations = [{ kind = "pagerduty", enabled = true }]
  }
  expect_failures = [var.integrations]
}

run "plain_secret" {
  command = plan
  variables {
    integrations = [{ kind = "slack", webhook_url = "https://hooks.slack.com/services/T/B/hunter2" }]
  }
  expect_failures = [var.integrations]
}

run "plain_secret_header" {
  command = plan
  variables {
    integrations = [{ kind = "webhook", secret_headers = { Authorization = "hunter2" } }]
  }
  expect_failures = [var.integrations]
}

run "a_file" {
  command = plan
  variables {
    integrations = [{ kind = "slack", webhook_url = "file:///etc/slack" }]
  }
  expect_failures = [var.integrations]
}

run "half_a_reference" {
  command = plan
  variables {
    integrations = [{ kind = "slack", webhook_url = "secret://slack" }]
  }
  expect_failures = [var.integrations]
}

run "secret_that_is_not_there" {
  command = plan
  variables {
    integrations = [{ kind = "slack", webhook_url = "secret://projects/acme-security/secrets/missing/versions/latest" }]
  }
  expect_failures = [var.integrations]
}

run "no_value" {
  command = plan
  variables {
    secrets = { key = { version = 1 } }
  }
  expect_failures = [var.secret_values]
}
