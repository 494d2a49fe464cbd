# Alerts as rows: Pub/Sub writes them, no code of ours does. data is the alert's JSON.
resource "google_bigquery_dataset" "archive" {
  count = var.archive.alerts ? 1 : 0

  project                    = var.project
  dataset_id                 = "apss"
  location                   = var.region
  labels                     = local.labels
  description                = "APSS: every alert, as it was published"
  delete_contents_on_destroy = !var.archive.protected
  depends_on                 = [google_project_service.api]
}

resource "google_bigquery_table" "alerts" {
  count = var.archive.alerts ? 1 : 0

  project             = var.project
  dataset_id          = google_bigquery_dataset.archive[0].dataset_id
  table_id            = "alerts"
  labels              = local.labels
  deletion_protection = var.archive.protected

  time_partitioning {
    type          = "DAY"
    field         = "publish_time"
    expiration_ms = var.archive.delete_days * 24 * 3600 * 1000
  }

  # cloud.google.com/pubsub/docs/bigquery#write_metadata
  schema = jsonencode([
    { name = "subscription_name", type = "STRING" },
    { name = "message_id", type = "STRING" },
    { name = "publish_time", type = "TIMESTAMP" },
    { name = "attributes", type = "JSON" },
    { name = "data", type = "JSON" },
  ])
}

resource "google_bigquery_table_iam_member" "archive" {
  for_each = toset(var.archive.alerts ? ["roles/bigquery.dataEditor", "roles/bigquery.metadataViewer"] : [])

  project    = var.project
  dataset_id = google_bigquery_dataset.archive[0].dataset_id
  table_id   = google_bigquery_table.alerts[0].table_id
  role       = each.value
  member     = local.pubsub_agent
}

resource "google_pubsub_subscription" "archive_alerts" {
  count = var.archive.alerts ? 1 : 0

  project                    = var.project
  name                       = "apss-alerts-archive"
  topic                      = module.pubsub.topics["alerts"].id
  labels                     = local.labels
  ack_deadline_seconds       = local.deadlines.ack
  message_retention_duration = "${local.deadlines.keep}s"

  bigquery_config {
    table          = "${var.project}.${google_bigquery_dataset.archive[0].dataset_id}.${google_bigquery_table.alerts[0].table_id}"
    write_metadata = true
  }
  expiration_policy {
    ttl = ""
  }
  depends_on = [google_bigquery_table_iam_member.archive]
}

# Envelopes as they are, with their attributes, in Avro files.
resource "google_storage_bucket" "archive" {
  count = var.archive.events ? 1 : 0

  project                     = var.project
  name                        = "${replace(replace(var.project, ":", "-"), ".", "-")}-apss-archive"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.archive.protected

  lifecycle_rule {
    condition {
      age = var.archive.delete_days
    }
    action {
      type = "Delete"
    }
  }
  depends_on = [google_project_service.api]
}

# What Pub/Sub needs (cloud.google.com/pubsub/docs/create-cloudstorage-subscription#assign_roles): to write, and to see that
# the bucket is there.
resource "google_storage_bucket_iam_member" "archive" {
  for_each = toset(var.archive.events ? ["roles/storage.objectCreator", "roles/storage.legacyBucketReader"] : [])

  bucket = google_storage_bucket.archive[0].name
  role   = each.value
  member = local.pubsub_agent
}

resource "google_pubsub_subscription" "archive_events" {
  count = var.archive.events ? 1 : 0

  project                    = var.project
  name                       = "apss-events-archive"
  topic                      = module.pubsub.topics["events"].id
  labels                     = local.labels
  ack_deadline_seconds       = 600 # files are written every five minutes, and acknowledged then
  message_retention_duration = "${local.deadlines.keep}s"

  cloud_storage_config {
    bucket          = google_storage_bucket.archive[0].name
    filename_prefix = "events/"
    filename_suffix = ".avro"
    max_duration    = "300s"
    max_bytes       = 104857600

    avro_config {
      write_metadata = true
    }
  }
  expiration_policy {
    ttl = ""
  }
  depends_on = [google_storage_bucket_iam_member.archive]
}
