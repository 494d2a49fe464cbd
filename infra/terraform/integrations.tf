locals {
  # Those that are served, by name, with what Terraform looks at.
  enabled = {
    for i in var.integrations : try(i.name, i.kind) => {
      events     = local.kinds[i.kind].events || try(tobool(i.events), false)
      severity   = try(tostring(i.route.min_severity), "INFO")
      namespaces = [for g in try(i.route.namespaces, []) : tostring(g)]
      clusters   = [for g in try(i.route.clusters, []) : tostring(g)]
      rules      = [for g in try(i.route.rules, []) : tostring(g)]
      secrets = distinct([
        for r in regexall("\"secret://(projects/[^/\"]+/secrets/[^/\"]+)/versions/[^/\"]+\"", jsonencode(i)) : r[0]
      ])
    } if try(tobool(i.enabled), false)
  }

  # Each function gets what it serves and no more: Forward those that take events, with their secrets.
  documents = {
    forward = jsonencode([for i in var.integrations : i if local.kinds[i.kind].events || try(tobool(i.events), false)])
    notify  = jsonencode(var.integrations)
    health  = jsonencode(var.integrations)
  }

  # A way is one integration's part of a topic: a subscription of its own.
  ways = merge(
    { for name, i in local.enabled : "events-${name}" => { topic = "events", function = "forward", integration = name } if i.events },
    { for name, i in local.enabled : "alerts-${name}" => { topic = "alerts", function = "notify", integration = name } },
  )
}
