resource "google_secret_manager_secret" "secret" {
  for_each = var.secrets

  project   = var.project
  secret_id = each.key
  labels    = local.labels

  replication {
    auto {}
  }

  # Secret Manager's notice for what a person has to do: 14 days before the receiver stops to accept the value.
  dynamic "rotation" {
    for_each = each.value.expires == null ? [] : [timeadd(each.value.expires, "-336h")]
    content {
      next_rotation_time = rotation.value
      rotation_period    = "31536000s" # the provider wants one; expires says when it really is
    }
  }
  dynamic "topics" {
    for_each = each.value.expires == null ? [] : [google_pubsub_topic.secret_notices[0].id]
    content {
      name = topics.value
    }
  }

  depends_on = [google_project_service.api, google_pubsub_topic_iam_member.secret_notices]
}

# The value goes to Secret Manager and is not kept: neither the plan nor the state has it.
resource "google_secret_manager_secret_version" "value" {
  for_each = { for name, s in var.secrets : name => s.version if s.version != null }

  secret                 = google_secret_manager_secret.secret[each.key].id
  secret_data_wo         = var.secret_values[each.key]
  secret_data_wo_version = each.value
  deletion_policy        = "DISABLE" # an old version can be taken back
}

# An existing secret that does not exist ends the plan here.
data "google_secret_manager_secret" "existing" {
  for_each = var.existing_secrets

  project   = split("/", each.value)[1]
  secret_id = split("/", each.value)[3]
}

locals {
  secret_ids = merge(
    { for name, s in google_secret_manager_secret.secret : "projects/${var.project}/secrets/${name}" => s.id },
    { for name, s in data.google_secret_manager_secret.existing : name => s.id },
  )

  # Which function reads which secret, by the integrations that it serves.
  secret_access = merge([
    for function in keys(local.functions) : merge([
      for name, i in local.enabled : {
        for s in i.secrets : "${function}/${s}" => { function = function, secret = s }
      } if function != "forward" || i.events
    ]...)
  ]...)
}

resource "google_secret_manager_secret_iam_member" "function" {
  for_each = local.secret_access

  secret_id = local.secret_ids[each.value.secret]
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.value.function].member
}

locals {
  any_expires = anytrue([for s in var.secrets : s.expires != null])
}

# Notices of Secret Manager. The alert policy looks at the topic's own figures: nobody subscribes.
resource "google_pubsub_topic" "secret_notices" {
  count = local.any_expires ? 1 : 0

  project    = var.project
  name       = "apss-secret-notices"
  labels     = local.labels
  depends_on = [google_project_service.api]
}

resource "google_pubsub_topic_iam_member" "secret_notices" {
  count = local.any_expires ? 1 : 0

  project = var.project
  topic   = google_pubsub_topic.secret_notices[0].name
  role    = "roles/pubsub.publisher"
  member  = local.secret_agent
}
