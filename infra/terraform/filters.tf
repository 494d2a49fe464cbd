# A route as a filter of the subscription, as far as the message's attributes can say it. A filter may let too much pass, the
# function looks again, and never too little: what has no such attribute passes, and so does a canary. An envelope has
# the highest severity of its events and their namespace only when it is one.
#
# A filter has 256 bytes at most (cloud.google.com/pubsub/docs/subscription-message-filter). What does not fit is left out,
# from the end.
locals {
  filter_bytes = 256

  # The severities below the least. One that cannot be read passes.
  filter_severity = {
    for name, i in local.enabled : name => join(" AND ", [
      for s in slice(local.severities, 0, index(local.severities, i.severity)) : "NOT attributes.severity = \"${s}\""
    ])
  }

  # Of a pattern, what stands before its first * or ?. A pattern that begins with one takes everything here.
  filter_globs = {
    for way, w in local.ways : way => {
      for attribute, globs in {
        namespace = local.enabled[w.integration].namespaces
        cluster   = local.enabled[w.integration].clusters
        rule      = w.topic == "alerts" ? local.enabled[w.integration].rules : []
        } : attribute => join(" OR ", concat(["NOT attributes:${attribute}"], [
          for g in globs : length(regexall("[*?]", g)) > 0
          ? "hasPrefix(attributes.${attribute}, ${jsonencode(regex("^[^*?]*", g))})" : "attributes.${attribute} = ${jsonencode(g)}"
      ])) if length(globs) > 0 && alltrue([for g in globs : can(regex("^[A-Za-z0-9_.:/-]", g)) && can(regex("^[A-Za-z0-9_.:/*?-]+$", g))])
    }
  }

  filter_clauses = {
    for way, w in local.ways : way => [
      for c in concat(
        [local.filter_severity[w.integration]],
        [for a in ["namespace", "cluster", "rule"] : lookup(local.filter_globs[way], a, "") == "" ? "" : "(${local.filter_globs[way][a]})"],
      ) : c if c != ""
    ]
  }

  # With all clauses, with all but the last, and so on: the first that fits.
  filters = {
    for way, clauses in local.filter_clauses : way => !var.subscription_filters ? "" : concat([
      for n in range(length(clauses)) : "attributes:\"ce-canary\" OR (${join(" AND ", slice(clauses, 0, length(clauses) - n))})"
      if length("attributes:\"ce-canary\" OR (${join(" AND ", slice(clauses, 0, length(clauses) - n))})") <= local.filter_bytes
    ], [""])[0]
  }
}
