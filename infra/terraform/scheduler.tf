# A function has no CPU between requests: this is its clock. Checks, canaries, digests, the ends of incidents and silent
# agents are looked for with each tick (docs/health.md).
resource "google_cloud_scheduler_job" "tick" {
  project          = var.project
  region           = var.region
  name             = "apss-tick"
  description      = "APSS: what is due"
  schedule         = "* * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "${local.deadlines.request}s"

  retry_config {
    retry_count = 0 # the next tick is a minute away
  }

  http_target {
    http_method = "POST"
    uri         = "${google_cloudfunctions2_function.function["health"].service_config[0].uri}/tick"

    oidc_token {
      service_account_email = google_service_account.scheduler.email
      audience              = google_cloudfunctions2_function.function["health"].service_config[0].uri
    }
  }
  depends_on = [google_project_service.api]
}
