# What the functions remember together (docs/state.md): by the operation, nothing to run.
resource "google_firestore_database" "state" {
  project                 = var.project
  name                    = "apss"
  location_id             = var.region
  type                    = "FIRESTORE_NATIVE"
  delete_protection_state = var.state_protected ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy         = var.state_protected ? "ABANDON" : "DELETE"
  depends_on              = [google_project_service.api]
}

# Records end by themselves, and of what is only read by its key no index is paid.
resource "google_firestore_field" "state" {
  for_each = toset(["expires", "value", "mark"])

  project    = var.project
  database   = google_firestore_database.state.name
  collection = "records"
  field      = each.value

  index_config {}

  dynamic "ttl_config" {
    for_each = each.value == "expires" ? [1] : []
    content {}
  }
}

# Firestore has no grants on a database but by a condition
# (cloud.google.com/firestore/docs/manage-databases#database_level_access_control).
resource "google_project_iam_member" "state" {
  for_each = local.functions

  project = var.project
  role    = "roles/datastore.user"
  member  = google_service_account.function[each.key].member

  condition {
    title      = "apss-state"
    expression = "resource.name == \"projects/${var.project}/databases/${google_firestore_database.state.name}\""
  }
}
