variable "secrets" {
  description = <<-EOT
    Secrets to make, by name. Their values never pass through the state: a person adds them
    (gcloud secrets versions add NAME --data-file=-), or, where version is set, they are taken from secret_values and written
    once for each number. expires is when the receiver stops to accept the value: a notice comes 14 days before.
  EOT
  type        = map(object({ version = optional(number), expires = optional(string) }))
  default     = {}
  nullable    = false

  validation {
    # cloud.google.com/secret-manager/docs/creating-and-accessing-secrets
    condition     = alltrue([for name, s in var.secrets : can(regex("^[A-Za-z0-9_-]{1,255}$", name))])
    error_message = "secrets: ${join(", ", [for name, s in var.secrets : "\"${name}\"" if !can(regex("^[A-Za-z0-9_-]{1,255}$", name))])}: a secret's name has letters, digits, _ and -, for instance \"slack-webhook\"."
  }
  validation {
    condition     = alltrue([for name, s in var.secrets : s.version == null || try(s.version >= 1 && floor(s.version) == s.version, false)])
    error_message = "secrets: version is a number from 1 on; raise it to write the value anew, for instance {slack-webhook = {version = 2}}."
  }
  validation {
    condition     = alltrue([for name, s in var.secrets : s.expires == null || can(timeadd(s.expires, "0s"))])
    error_message = "secrets: ${join(", ", [for name, s in var.secrets : name if s.expires != null && !can(timeadd(s.expires, "0s"))])}: expires is a time, for instance \"2027-03-01T00:00:00Z\"."
  }
}

variable "secret_values" {
  description = "Values of those secrets that have a version. Give them in TF_VAR_secret_values and nowhere else; they are not kept."
  type        = map(string)
  default     = {}
  nullable    = false
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = alltrue([for name, s in var.secrets : s.version == null || try(length(var.secret_values[name]) > 0, false)])
    error_message = "secret_values: a secret that has a version has no value here (the variable secrets says which). Give it with each plan, for instance export TF_VAR_secret_values='{\"pagerduty\":\"...\"}'; or add the value by hand, and then take its version away."
  }
}

variable "existing_secrets" {
  description = "Full names of secrets that exist already, here or in another project, that integrations refer to."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for s in var.existing_secrets : can(regex("^projects/[a-z][a-z0-9-]+/secrets/[A-Za-z0-9_-]{1,255}$", s))])
    error_message = "existing_secrets: write full names, for instance [\"projects/acme-security/secrets/slack-webhook\"]."
  }
}
