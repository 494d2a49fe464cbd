locals {
  functions = {
    forward = { entry_point = "Forward", ingress = "ALLOW_INTERNAL_ONLY" }
    notify  = { entry_point = "Notify", ingress = "ALLOW_INTERNAL_ONLY" }
    health  = { entry_point = "Health", ingress = var.health_ingress }
  }

  source      = coalesce(var.functions_source, "${path.module}/../../dist/apss-functions.zip")
  is_uploaded = startswith(local.source, "gs://")

  environment = {
    for f in keys(local.functions) : f => merge({
      PUBSUB_PROJECT_ID    = var.project
      EVENTS_TOPIC         = module.pubsub.topics["events"].name
      ALERTS_TOPIC         = module.pubsub.topics["alerts"].name
      DEAD_LETTERS_TOPIC   = module.pubsub.dead_letters.topic.name
      STATE_STORE          = "firestore://${var.project}/${google_firestore_database.state.name}"
      LOG_LEVEL            = var.log_level
      APSS_INTEGRATIONS    = local.documents[f]
      FORWARD_LINGER       = "${local.deadlines.linger}s"
      FORWARD_CALL_TIMEOUT = "${local.deadlines.call}s"
      DEAD_LETTERS_TIMEOUT = "${local.deadlines.bury}s"
      FORWARD_TIMEOUT      = "${local.deadlines.answer}s"
      FORWARD_ACK_DEADLINE = "${local.deadlines.ack}s"
      HEALTH_CHECK_EVERY   = "${local.deadlines.check}s"
      HEALTH_CANARY_EVERY  = "${local.deadlines.canary}s"
    }, var.otlp_endpoint == null ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT = var.otlp_endpoint })
  }
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${replace(replace(var.project, ":", "-"), ".", "-")}-apss-functions"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # make dist makes its zips again

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90 # a zip that Terraform has replaced by another is kept so long
    }
    action {
      type = "Delete"
    }
  }
  versioning {
    enabled = true
  }
  depends_on = [google_project_service.api]
}

# The name says what is in it: another source is another object, and so another revision.
resource "google_storage_bucket_object" "source" {
  count = local.is_uploaded ? 0 : 1

  bucket = google_storage_bucket.source.name
  name   = "functions/${filesha256(local.source)}.zip"
  source = local.source
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions

  project     = var.project
  location    = var.region
  name        = "apss-${each.key}"
  description = "APSS: ${each.value.entry_point}"
  labels      = local.labels

  build_config {
    runtime           = var.functions_runtime
    entry_point       = each.value.entry_point
    service_account   = google_service_account.build.id
    docker_repository = google_artifact_registry_repository.images.id

    # The zip has its dependencies in vendor/.
    environment_variables = {
      GOFLAGS = "-mod=vendor"
      GOPROXY = "off"
    }

    source {
      storage_source {
        bucket = local.is_uploaded ? split("/", trimprefix(local.source, "gs://"))[0] : google_storage_bucket.source.name
        object = local.is_uploaded ? join("/", slice(split("/", local.source), 3, length(split("/", local.source)))) : google_storage_bucket_object.source[0].name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.function[each.key].email
    ingress_settings                 = each.value.ingress
    timeout_seconds                  = local.deadlines.request
    max_instance_request_concurrency = 80 # pushes wait together for one call; needs a whole CPU
    available_cpu                    = "1"
    available_memory                 = "512Mi"
    min_instance_count               = var.instances.min
    max_instance_count               = var.instances.max
    all_traffic_on_latest_revision   = true
    environment_variables            = local.environment[each.key]
  }

  # A function starts only when it may read what its document refers to, and builds only when it may store its image.
  depends_on = [
    google_secret_manager_secret_iam_member.function,
    google_artifact_registry_repository_iam_member.build,
    google_project_iam_member.build,
    google_project_iam_member.state,
    google_storage_bucket_iam_member.build,
  ]
}
