# What runs in the clusters publishes, as itself and without keys: GKE's workload identity
# (cloud.google.com/kubernetes-engine/docs/how-to/workload-identity).
locals {
  cluster_projects = length(var.cluster_projects) > 0 ? var.cluster_projects : { (var.project) = data.google_project.this.number }

  publishes = { agent = ["events", "alerts"], relay = ["events", "alerts"], webhook = ["events"] }
  publishers = merge([
    for project, number in local.cluster_projects : merge([
      for program, topics in local.publishes : {
        for topic in topics : "${project}/${program}/${topic}" => {
          topic  = topic
          member = "principal://iam.googleapis.com/projects/${number}/locations/global/workloadIdentityPools/${project}.svc.id.goog/subject/ns/${var.edge.namespace}/sa/${var.edge[program]}"
        }
      }
    ]...)
  ]...)
}

resource "google_pubsub_topic_iam_member" "edge" {
  for_each = local.publishers

  project = var.project
  topic   = module.pubsub.topics[each.value.topic].name
  role    = "roles/pubsub.publisher"
  member  = each.value.member
}
