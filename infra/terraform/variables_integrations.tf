variable "integrations" {
  description = "The document of integrations, as docs/integrations.md describes it: a list in HCL, or yamldecode(file(\"integrations.yaml\"))."
  type        = any
  default     = []
  nullable    = false

  # Each check is one sentence. Those that follow the first take for granted what it says.
  validation {
    condition     = can([for i in var.integrations : keys(i)]) && can(length(var.integrations[*])) && !can(keys(var.integrations))
    error_message = "integrations: want a list, each with a kind, for instance [{name = \"soc\", kind = \"slack\", enabled = true, webhook_url = \"secret://projects/${var.project}/secrets/slack-webhook/versions/latest\"}]."
  }
  validation {
    condition     = alltrue([for i in try(tolist([for i in var.integrations : try(tostring(i.kind), "")]), []) : contains(keys(local.kinds), i)])
    error_message = "integrations: there is no kind ${try(join(", ", [for i in var.integrations : try("\"${i.kind}\"", "(none is given)") if !contains(keys(local.kinds), try(tostring(i.kind), ""))]), "")}; there are ${try(join(", ", keys(local.kinds)), "")}, for instance kind = \"slack\"."
  }
  validation {
    condition = alltrue([for i in try([for i in var.integrations : try(tostring(i.name), i.kind)], []) :
    can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", i)) && !contains(["agents", "archive"], i)])
    error_message = "integrations: ${try(join(", ", [for i in var.integrations : try("\"${tostring(i.name)}\"", "(none)") if !can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", try(tostring(i.name), i.kind))) || try(tostring(i.name), "") == "agents" || try(tostring(i.name), "") == "archive"]), "")} is no name; it has small letters, digits and dashes, at most 63, and is neither \"agents\" nor \"archive\", for instance name = \"soc-slack\"."
  }
  validation {
    condition     = length(distinct([for i in try(var.integrations[*], []) : try(tostring(i.name), tostring(i.kind), "")])) == length(try(var.integrations[*], []))
    error_message = "integrations: two have the same name (${try(join(", ", [for i in var.integrations : try(tostring(i.name), tostring(i.kind), "")]), "")}); one without a name has that of its kind. Give each its own, for instance name = \"soc-slack\"."
  }
  validation {
    condition = alltrue(flatten([for i in try(var.integrations[*], []) : [
      for k in try(keys(i), []) : contains(concat(local.common_keys, try(local.kinds[i.kind].keys, [k])), k)
    ]]))
    error_message = "integrations: no such key: ${try(join(", ", flatten([for i in var.integrations : [for k in keys(i) : "${try(i.name, i.kind)}.${k}" if !contains(concat(local.common_keys, try(local.kinds[i.kind].keys, [k])), k)]])), "")}. docs/integrations.md names those of each kind, for instance webhook_url of slack; those for local runs (api_url, allow_http) are refused here."
  }
  validation {
    condition = alltrue(flatten([for i in try(var.integrations[*], []) : [
      for part, known in local.inner_keys : [for k in try(keys(i[part]), []) : contains(known, k)]
    ]]))
    error_message = "integrations: no such key: ${try(join(", ", flatten([for i in var.integrations : [for part, known in local.inner_keys : [for k in try(keys(i[part]), []) : "${try(i.name, i.kind)}.${part}.${k}" if !contains(known, k)]]])), "")}. A route has ${try(join(", ", local.inner_keys.route), "")}, for instance route = {min_severity = \"HIGH\"}."
  }
  validation {
    condition     = alltrue([for i in try(var.integrations[*], []) : contains(local.severities, try(tostring(i.route.min_severity), "INFO"))])
    error_message = "integrations: ${try(join(", ", [for i in var.integrations : "${try(i.name, i.kind)}.route.min_severity \"${try(i.route.min_severity, "")}\"" if !contains(local.severities, try(tostring(i.route.min_severity), "INFO"))]), "")} is no severity; there are ${try(join(", ", local.severities), "")}, for instance min_severity = \"HIGH\"."
  }
  validation {
    condition = alltrue(flatten([for i in try(var.integrations[*], []) : [for t in try(i.route.types, []) :
      anytrue([for e in local.event_types : can(regex("^${replace(replace(t, "*", ".*"), "?", ".")}$", e))])
    ]]))
    error_message = "integrations: ${try(join(", ", flatten([for i in var.integrations : [for t in try(i.route.types, []) : "${try(i.name, i.kind)}.route.types \"${t}\"" if !anytrue([for e in local.event_types : can(regex("^${replace(replace(t, "*", ".*"), "?", ".")}$", e))])]])), "")} matches no type of event; there are ${try(join(", ", local.event_types), "")}, for instance types = [\"file_*\"]."
  }
  validation {
    condition = alltrue(flatten([for i in try(var.integrations[*], []) : [
      for k in try(local.kinds[i.kind].required, []) : try(i[k], null) != null && try(i[k], "") != "" if try(tobool(i.enabled), false)
    ]]))
    error_message = "integrations: is required, because it is enabled: ${try(join(", ", flatten([for i in var.integrations : [for k in local.kinds[i.kind].required : "${try(i.name, i.kind)}.${k}" if try(tobool(i.enabled), false) && (try(i[k], null) == null || try(i[k], "") == "")]])), "")}; write it, or enabled = false. A key is, for instance, routing_key = \"secret://projects/${var.project}/secrets/pagerduty/versions/latest\"."
  }
  validation {
    # A value that is no text, and the text of a reference that is none, are both at fault.
    condition = alltrue(flatten([for i in try(var.integrations[*], []) : concat(
      [for k in try(local.kinds[i.kind].secrets, []) : can(regex(local.secret_reference, i[k])) if try(i[k], null) != null],
      [for k, v in try(i.secret_headers, {}) : can(regex(local.secret_reference, v))],
      [for r in regexall("\"([a-z]+)://[^\"]*\"", jsonencode(i)) : contains(["https", "http", "secret"], r[0])],
      [for r in regexall("\"(secret://[^\"]*)\"", jsonencode(i)) : can(regex(local.secret_reference, r[0]))],
    )]))
    error_message = "integrations: a secret is written out or is no reference at ${try(join(", ", flatten([for i in var.integrations : concat([for k in try(local.kinds[i.kind].secrets, []) : "${try(i.name, i.kind)}.${k}" if try(i[k], null) != null && !can(regex(local.secret_reference, i[k]))], [for k, v in try(i.secret_headers, {}) : "${try(i.name, i.kind)}.secret_headers.${k}" if !can(regex(local.secret_reference, v))], [for r in regexall("\"(secret|file|env)://[^\"]*\"", jsonencode(i)) : "${try(i.name, i.kind)} (a ${r[0]}:// reference)" if r[0] != "secret"])])), "")} (values are not shown). Keep it in Secret Manager and write, for instance, \"secret://projects/${var.project}/secrets/slack-webhook/versions/latest\"."
  }
  validation {
    condition = length(setsubtract(
      [for r in regexall("\"secret://(projects/[^/\"]+/secrets/[^/\"]+)/versions/[^/\"]+\"", try(jsonencode(var.integrations), "")) : r[0]],
      concat([for name, s in var.secrets : "projects/${var.project}/secrets/${name}"], tolist(var.existing_secrets)),
    )) == 0
    error_message = "integrations: no such secret: ${try(join(", ", setsubtract([for r in regexall("\"secret://(projects/[^/\"]+/secrets/[^/\"]+)/versions/[^/\"]+\"", jsonencode(var.integrations)) : r[0]], concat([for name, s in var.secrets : "projects/${var.project}/secrets/${name}"], tolist(var.existing_secrets)))), "")}. Have it made, for instance secrets = {slack-webhook = {}}, or name it in existing_secrets."
  }
  validation {
    # A function's variables have 32 KiB together: cloud.google.com/run/docs/configuring/services/overview-environment-variables
    condition     = try(length(jsonencode(var.integrations)), 0) < 28 * 1024
    error_message = "integrations: the document has ${length(jsonencode(var.integrations))} bytes, and a function takes 28672; take out what is disabled, for instance."
  }
}
