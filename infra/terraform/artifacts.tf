# Images of agent, relay, webhook and of the functions.
resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = "apss"
  format        = "DOCKER"
  labels        = local.labels

  cleanup_policies {
    id     = "keep-releases"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }
  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }
  depends_on = [google_project_service.api]
}

# Nodes pull as the service account of their cluster or node pool.
resource "google_artifact_registry_repository_iam_member" "nodes" {
  for_each = var.node_service_accounts

  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = "serviceAccount:${each.value}"
}

# The functions' builds: they read their source, write their image and their log
# (cloud.google.com/build/docs/securing-builds/configure-user-specified-service-accounts).
resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

resource "google_project_iam_member" "build" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# Cloud Functions copies a source into a bucket of its own before it builds it.
resource "google_project_iam_member" "build_copy" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title      = "apss-functions-sources"
    expression = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-\")"
  }
}

# cloudbuild.yaml, for each push to the branch: checks, images, chart and zip.
resource "google_cloudbuild_trigger" "push" {
  count = var.repository == null ? 0 : 1

  project         = var.project
  location        = var.region
  name            = "apss-push"
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.ci[0].id

  github {
    owner = var.repository.owner
    name  = var.repository.name
    push {
      branch = "^${replace(var.repository.branch, ".", "\\.")}$"
    }
  }
  substitutions = {
    _REGISTRY = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}"
    _BUCKET   = google_storage_bucket.source.name
  }
}

resource "google_service_account" "ci" {
  count = var.repository == null ? 0 : 1

  project      = var.project
  account_id   = "apss-ci"
  display_name = "APSS: checks and builds what is pushed"
  depends_on   = [google_project_service.api]
}

resource "google_artifact_registry_repository_iam_member" "ci" {
  count = var.repository == null ? 0 : 1

  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.ci[0].member
}

resource "google_project_iam_member" "ci" {
  count = var.repository == null ? 0 : 1

  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.ci[0].member
}

# It adds zips and charts, after a look whether they are there (gcloud storage cp --no-clobber), and cannot take one away or
# replace it: the names of zips say what is in them.
resource "google_storage_bucket_iam_member" "ci" {
  for_each = toset(var.repository == null ? [] : ["roles/storage.objectCreator", "roles/storage.objectViewer"])

  bucket = google_storage_bucket.source.name
  role   = each.value
  member = google_service_account.ci[0].member
}
