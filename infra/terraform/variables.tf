variable "project" {
  description = "Id of the Google Cloud project that everything is made in."
  type        = string
  nullable    = false

  validation {
    # cloud.google.com/resource-manager/docs/creating-managing-projects
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: \"${var.project}\" is no project's id. It has 6 to 30 small letters, digits and dashes, for instance \"acme-security\"; the number or the name of a project is not its id."
  }
}

variable "region" {
  description = "Region of the functions, the images, the state and the archives."
  type        = string
  nullable    = false

  validation {
    # How Google names them (cloud.google.com/about/locations); which there are changes, and Google says so at apply.
    condition     = can(regex("^(africa|asia|australia|europe|me|northamerica|southamerica|us)-(north|south)?(central|east|north|south|west)[1-9][0-9]?$", var.region))
    error_message = "region: \"${var.region}\" is no region of Google Cloud. Write one like \"europe-west1\" or \"us-central1\"; \"europe-west1-b\" would be a zone and \"EU\" is several regions."
  }
}

variable "labels" {
  description = "Labels on everything that can have them, beside app=apss."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    # cloud.google.com/resource-manager/docs/labels-overview
    condition     = alltrue([for k, v in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", k)) && can(regex("^[a-z0-9_-]{0,63}$", v))])
    error_message = "labels: keys and values are small letters, digits, _ and -, at most 63, and a key begins with a letter, for instance {team = \"soc\"}."
  }
}

variable "functions_source" {
  description = "What make dist made: the zip's path, or gs://BUCKET/OBJECT where a build has uploaded it."
  type        = string
  default     = null # dist/apss-functions.zip of this repository

  validation {
    condition = var.functions_source == null ? fileexists("${path.module}/../../dist/apss-functions.zip") : (
      can(regex("^gs://[a-z0-9][a-z0-9._-]+/.+\\.zip$", var.functions_source)) || fileexists(coalesce(var.functions_source, "-"))
    )
    error_message = "functions_source: there is no such zip. Run make dist, which writes dist/apss-functions.zip, or name what a build has uploaded, for instance \"gs://acme-security-apss/functions/1f3a.zip\"."
  }
}

variable "functions_runtime" {
  description = "Runtime of the functions; Go 1.26 or later."
  type        = string
  default     = "go126"
  nullable    = false

  validation {
    condition     = can(regex("^go1(2[6-9]|[3-9][0-9])$", var.functions_runtime))
    error_message = "functions_runtime: \"${var.functions_runtime}\" cannot build them. Write \"go126\" or a later Go."
  }
}

variable "instances" {
  description = "Running copies of each function: min are always there, which costs and makes the first alert after a pause a few seconds faster."
  type        = object({ min = optional(number, 0), max = optional(number, 10) })
  default     = {}
  nullable    = false

  validation {
    condition = (var.instances.min >= 0 && var.instances.max >= 1 && var.instances.max <= 100 && var.instances.min <= var.instances.max
    && floor(var.instances.min) == var.instances.min && floor(var.instances.max) == var.instances.max)
    error_message = "instances: want whole numbers, 0 <= min <= max and max from 1 to 100, for instance {min = 1, max = 10}."
  }
}

variable "log_level" {
  description = "Level of the functions' logs. The alert on canaries and on silent agents reads those of INFO and WARN."
  type        = string
  default     = "INFO"
  nullable    = false

  validation {
    condition     = contains(["DEBUG", "INFO"], var.log_level)
    error_message = "log_level: \"${var.log_level}\" is none of DEBUG and INFO. What is above INFO would hide what the alert policies look at."
  }
}

variable "otlp_endpoint" {
  description = "OpenTelemetry collector (gRPC, https://host:4317) that the functions send traces and metrics to; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.otlp_endpoint == null || can(regex("^https?://[^/]+:[0-9]+$", var.otlp_endpoint))
    error_message = "otlp_endpoint: write scheme, host and port of gRPC, for instance \"https://collector.example:4317\"."
  }
}

variable "health_ingress" {
  description = "Who can reach the function Health over the network: ALLOW_INTERNAL_ONLY, or ALLOW_ALL for apssctl on a laptop. In both cases Cloud Run lets only operators in."
  type        = string
  default     = "ALLOW_INTERNAL_ONLY"
  nullable    = false

  validation {
    condition     = contains(["ALLOW_INTERNAL_ONLY", "ALLOW_ALL"], var.health_ingress)
    error_message = "health_ingress: \"${var.health_ingress}\" is none of ALLOW_INTERNAL_ONLY and ALLOW_ALL."
  }
}

variable "operators" {
  description = "Who may ask how the integrations are (apssctl status, test) and read and take dead letters."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for m in var.operators : can(regex("^(user|group|serviceAccount):[^@ ]+@[^@ ]+$", m))])
    error_message = "operators: write who it is, for instance \"group:soc@example.com\" or \"user:ada@example.com\"; allUsers and whole domains are not let in."
  }
}

variable "subscription_filters" {
  description = "Whether routes become filters of the subscriptions, as far as they can, which saves pushes. A changed filter makes a new subscription: see README."
  type        = bool
  default     = true
  nullable    = false
}

variable "edge" {
  description = "Where agent, relay and webhook run: their namespace and service accounts, as the Helm chart makes them."
  type = object({
    namespace = optional(string, "apss-system")
    agent     = optional(string, "apss-agent")
    relay     = optional(string, "apss-relay")
    webhook   = optional(string, "apss-webhook")
  })
  default  = {}
  nullable = false

  validation {
    # kubernetes.io/docs/concepts/overview/working-with-objects/names: RFC 1123
    condition     = alltrue([for n in values(var.edge) : can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", n))])
    error_message = "edge: names of Kubernetes are small letters, digits and dashes, for instance {namespace = \"apss-system\", agent = \"apss-agent\"}."
  }
}

variable "node_service_accounts" {
  description = "Service accounts of the clusters' nodes (emails), which pull the images."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for a in var.node_service_accounts : can(regex("^[a-z0-9-]+@[a-z0-9.-]+\\.gserviceaccount\\.com$", a))])
    error_message = "node_service_accounts: ${join(", ", [for a in var.node_service_accounts : "\"${a}\"" if !can(regex("^[a-z0-9-]+@[a-z0-9.-]+\\.gserviceaccount\\.com$", a))])} is no service account's email. Write, for instance, [\"123456789012-compute@developer.gserviceaccount.com\"]; gcloud container node-pools describe shows it (config.serviceAccount), and \"default\" there is that one."
  }
}

variable "cluster_projects" {
  description = "Projects of the clusters, number by id, when they are not in this project: {\"acme-prod\" = \"123456789012\"}."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([for id, number in var.cluster_projects :
      can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", id)) && can(regex("^[0-9]{6,}$", number))
    ])
    error_message = "cluster_projects: write ids with their numbers, for instance {\"acme-prod\" = \"123456789012\"}; gcloud projects describe acme-prod --format='value(projectNumber)' tells the number."
  }
}

variable "state_protected" {
  description = "Whether the state's database refuses to be deleted. What it holds is remade in a day; some alerts would be told twice."
  type        = bool
  default     = false
  nullable    = false
}

variable "archive" {
  description = "Copies for later, by subscriptions that need no code: alerts into BigQuery, the events' envelopes into Cloud Storage. What is protected is not deleted with what it holds, whatever is destroyed."
  type = object({
    alerts      = optional(bool, false)
    events      = optional(bool, false)
    delete_days = optional(number, 365)
    protected   = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.archive.delete_days >= 1 && var.archive.delete_days == floor(var.archive.delete_days)
    error_message = "archive.delete_days: ${var.archive.delete_days} is no number of days, for instance 365."
  }
}

variable "notify" {
  description = "Who is told when APSS itself is in trouble: notification channels. email addresses, and ids of channels that exist."
  type = object({
    emails   = optional(set(string), [])
    channels = optional(set(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for e in var.notify.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", e))])
    error_message = "notify.emails: write addresses, for instance [\"oncall@example.com\"]."
  }
  validation {
    condition     = alltrue([for c in var.notify.channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", c))])
    error_message = "notify.channels: write full names, for instance [\"projects/acme-security/notificationChannels/123\"]; gcloud beta monitoring channels list shows them."
  }
}

variable "budget" {
  description = "Monthly budget of the project, with a mail to the billing account's administrators at 50, 90 and 100 %; null: none."
  type        = object({ billing_account = string, amount = number, currency = optional(string, "USD") })
  default     = null

  validation {
    condition = var.budget == null || try(
      can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.budget.billing_account)) && var.budget.amount >= 1
      && floor(var.budget.amount) == var.budget.amount && can(regex("^[A-Z]{3}$", var.budget.currency)),
    false)
    error_message = "budget: write the billing account, a whole amount and its currency, for instance {billing_account = \"012345-6789AB-CDEF01\", amount = 50, currency = \"EUR\"}."
  }
}

variable "repository" {
  description = "GitHub repository that is connected to Cloud Build, of which pushes to branch are checked, built and uploaded; null: no trigger."
  type        = object({ owner = string, name = string, branch = optional(string, "main") })
  default     = null

  validation {
    condition = var.repository == null || try(
      can(regex("^[A-Za-z0-9-]+$", var.repository.owner)) && can(regex("^[A-Za-z0-9._-]+$", var.repository.name))
    && can(regex("^[A-Za-z0-9._/-]+$", var.repository.branch)), false)
    error_message = "repository: write owner, name and branch, for instance {owner = \"acme\", name = \"apss\", branch = \"main\"}."
  }
}
