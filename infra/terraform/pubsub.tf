module "pubsub" {
  source = "./pubsub"

  project   = google_project_service.api["pubsub.googleapis.com"].project # after the service is there
  labels    = local.labels
  agent     = local.pubsub_agent
  deadlines = local.deadlines
  ways      = { for way, w in local.ways : way => merge(w, { filter = local.filters[way] }) }
  functions = {
    for f in keys(local.functions) : f => {
      uri    = google_cloudfunctions2_function.function[f].service_config[0].uri
      pusher = google_service_account.push[f].email
    }
  }
}
