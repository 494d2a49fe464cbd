locals {
  apis = [
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ]
  optional_apis = concat(
    var.archive.alerts ? ["bigquery.googleapis.com"] : [],
    var.budget != null ? ["billingbudgets.googleapis.com"] : [],
  )
  labels = merge(var.labels, { app = "apss" })
}

resource "google_project_service" "api" {
  for_each = toset(concat(local.apis, local.optional_apis))

  project            = var.project
  service            = each.value
  disable_on_destroy = false # others in the project may use it
}

# The project's number is in the names of Google's own service agents. It is read after the service that knows it is there, so
# that a first plan asks nobody, and after no other: a service that is switched on later would make the number unknown until
# apply, and every grant to an agent would be taken away and made anew.
resource "google_project_service" "resource_manager" {
  project            = var.project
  service            = "cloudresourcemanager.googleapis.com"
  disable_on_destroy = false
}

data "google_project" "this" {
  project_id = var.project
  depends_on = [google_project_service.resource_manager]
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  secret_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
}
