# What Google would answer, as far as other resources look at it.
mock_data "google_project" {
  defaults = { number = "123456789012" }
}

mock_resource "google_cloudfunctions2_function" {
  defaults = { service_config = { uri = "https://function.example" } }
}

mock_resource "google_artifact_registry_repository" {
  defaults = { id = "projects/acme-security/locations/europe-west1/repositories/apss" }
}

override_resource {
  target = google_service_account.function["forward"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-forward@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-forward@acme-security.iam.gserviceaccount.com"
    email  = "apss-forward@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-forward@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.push["forward"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-push-forward@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-push-forward@acme-security.iam.gserviceaccount.com"
    email  = "apss-push-forward@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-push-forward@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.function["notify"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-notify@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-notify@acme-security.iam.gserviceaccount.com"
    email  = "apss-notify@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-notify@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.push["notify"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-push-notify@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-push-notify@acme-security.iam.gserviceaccount.com"
    email  = "apss-push-notify@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-push-notify@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.function["health"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-health@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-health@acme-security.iam.gserviceaccount.com"
    email  = "apss-health@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-health@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.push["health"]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-push-health@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-push-health@acme-security.iam.gserviceaccount.com"
    email  = "apss-push-health@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-push-health@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.scheduler
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-scheduler@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-scheduler@acme-security.iam.gserviceaccount.com"
    email  = "apss-scheduler@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-scheduler@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.build
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-build@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-build@acme-security.iam.gserviceaccount.com"
    email  = "apss-build@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-build@acme-security.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.ci[0]
  values = {
    id     = "projects/acme-security/serviceAccounts/apss-ci@acme-security.iam.gserviceaccount.com"
    name   = "projects/acme-security/serviceAccounts/apss-ci@acme-security.iam.gserviceaccount.com"
    email  = "apss-ci@acme-security.iam.gserviceaccount.com"
    member = "serviceAccount:apss-ci@acme-security.iam.gserviceaccount.com"
  }
}
