# The topics and subscriptions on Google's Pub/Sub emulator. It knows no grants (501), so apply with -target: see ../../check.
module "pubsub" {
  source = "../../pubsub"

  project = var.project
  labels  = { app = "apss" }
  agent   = "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
  deadlines = {
    ack        = 60
    attempts   = 100
    keep       = 604800
    keep_dead  = 604800 # the emulator knows no more than 7 days
    keep_topic = 86400
    retry      = { events = { min = 10, max = 600 }, alerts = { min = 2, max = 300 } }
  }
  ways = {
    events-sweet = { topic = "events", function = "forward", integration = "sweet", filter = "" }
    alerts-sweet = { topic = "alerts", function = "notify", integration = "sweet", filter = "" }
    alerts-soc = { topic = "alerts", function = "notify", integration = "soc",
    filter = "attributes:\"ce-canary\" OR (NOT attributes.severity = \"INFO\" AND (NOT attributes:cluster OR hasPrefix(attributes.cluster, \"prod-\")))" }
  }
  functions = {
    for f in ["forward", "notify", "health"] : f => { uri = "https://${f}.example", pusher = "${f}@${var.project}.iam.gserviceaccount.com" }
  }
}

variable "project" {
  description = "A name of this run's own: the emulator keeps what others made."
  type        = string
}

variable "emulator" {
  description = "host:port."
  type        = string
}

provider "google" {
  project                = var.project
  access_token           = "none" # the emulator asks for no token, the provider for one
  pubsub_custom_endpoint = "http://${var.emulator}/v1/"
}
