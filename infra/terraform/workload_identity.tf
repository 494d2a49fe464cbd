# What runs in the clusters publishes, as itself and without keys: GKE's workload identity
# (cloud.google.com/kubernetes-engine/docs/how-to/workload-identity).
locals {
  cluster_projects = length(var.cluster_projects) > 0 ? var.cluster_projects : { (var.project) = data.google_project.this.number }

  publishers = {
    for p in setproduct(keys(local.cluster_projects), ["agent", "relay", "webhook"], ["events", "alerts"]) : join("/", p) => {
      topic  = p[2]
      member = "principal://iam.googleapis.com/projects/${local.cluster_projects[p[0]]}/locations/global/workloadIdentityPools/${p[0]}.svc.id.goog/subject/ns/${var.edge.namespace}/sa/${var.edge[p[1]]}"
    }
  }
}

resource "google_pubsub_topic_iam_member" "edge" {
  for_each = local.publishers

  project = var.project
  topic   = module.pubsub.topics[each.value.topic].name
  role    = "roles/pubsub.publisher"
  member  = each.value.member
}
