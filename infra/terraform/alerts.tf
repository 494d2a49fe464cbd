# When APSS itself is in trouble. Every canary passes every subscription, so that a way on which nothing arrives is broken,
# however quiet the clusters are.
locals {
  our_subscriptions = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=monitoring.regex.full_match(\"apss-(events|alerts)-.*\")"

  thresholds = {
    waiting = {
      name   = "messages wait for more than 15 minutes"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.our_subscriptions}"
      above  = 900
      for    = 300
      align  = "ALIGN_MAX"
      reduce = "REDUCE_MAX"
      by     = ["resource.label.subscription_id"]
      doc    = "A receiver refuses or does not answer. Ask `apssctl status` for the reason. Nothing is lost: what waits is kept for ${local.deadlines.keep / 86400} days."
    }
    dead_letters = {
      name   = "there are dead letters"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"apss-dead-letters\""
      above  = 0
      for    = 0
      align  = "ALIGN_MAX"
      reduce = "REDUCE_MAX"
      by     = []
      doc    = "`apssctl dlq list` says which and why, `apssctl dlq replay` delivers them when the reason is gone. They are kept for ${local.deadlines.keep_dead / 86400} days."
    }
    refused = {
      name   = "pushes are refused for 10 minutes"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.our_subscriptions} AND metric.labels.response_class!=\"ack\""
      above  = 0.2 # a second: more than one integration's pauses
      for    = 600
      align  = "ALIGN_RATE"
      reduce = "REDUCE_SUM"
      by     = ["resource.label.subscription_id"]
      doc    = "The function answers that it cannot deliver. Its log has the reason, `apssctl status` says which receiver it is."
    }
    secret_expiry = {
      name   = "a secret ends in 14 days"
      filter = "metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\" AND resource.type=\"pubsub_topic\" AND resource.labels.topic_id=\"apss-secret-notices\""
      above  = 0
      for    = 0
      align  = "ALIGN_DELTA"
      reduce = "REDUCE_SUM"
      by     = []
      doc    = "Secret Manager gave notice. Compare `expires` in the variable secrets with today, get a new value from the receiver, add it (`gcloud secrets versions add NAME --data-file=-`), and write its end into expires."
    }
  }

  # What must be there: acknowledged pushes on each way, and the scheduler's ticks.
  absences = {
    progress = {
      name   = "nothing arrives on a way"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.our_subscriptions} AND metric.labels.response_class=\"ack\""
      by     = ["resource.label.subscription_id"]
      doc    = "Not even a canary was acknowledged for half an hour. Either Health does not send them (see the other alert) or the function cannot be reached: `gcloud functions describe apss-forward --region ${var.region}`, or apss-notify, or apss-health."
    }
    ticks = {
      name   = "Health gets no ticks"
      filter = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"apss-health\" AND metric.labels.response_code_class=\"2xx\""
      by     = ["resource.label.service_name"]
      doc    = "Cloud Scheduler's job apss-tick fails or is paused: no checks, no canaries, no digests. `gcloud scheduler jobs describe apss-tick --location ${var.region}`."
    }
  }

  # Each kind of policy makes its own condition of what the tables say.
  policies = merge(
    { for key, p in local.thresholds : key => { name = p.name, doc = p.doc, kind = "threshold" } if key != "secret_expiry" || local.any_expires },
    { for key, p in local.absences : key => { name = p.name, doc = p.doc, kind = "absence" } },
    { for key, p in local.log_lines : key => { name = p.name, doc = p.doc, kind = "log" } },
  )
}

# What the logs say is matched there: a policy on a log-based metric that was made a moment ago is refused ("Cannot find metric(s)
# that match type", terraform-provider-google#11102), and so would be the first apply.
resource "google_monitoring_alert_policy" "trouble" {
  for_each = local.policies

  project               = var.project
  display_name          = "APSS: ${each.value.name}"
  combiner              = "OR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = each.value.name

    dynamic "condition_threshold" {
      for_each = each.value.kind == "threshold" ? [local.thresholds[each.key]] : []
      content {
        filter          = condition_threshold.value.filter
        comparison      = "COMPARISON_GT"
        threshold_value = condition_threshold.value.above
        duration        = "${condition_threshold.value.for}s"
        aggregations {
          alignment_period     = "300s"
          per_series_aligner   = condition_threshold.value.align
          cross_series_reducer = condition_threshold.value.reduce
          group_by_fields      = condition_threshold.value.by
        }
      }
    }
    dynamic "condition_absent" {
      for_each = each.value.kind == "absence" ? [local.absences[each.key]] : []
      content {
        filter   = condition_absent.value.filter
        duration = "1800s"
        aggregations {
          alignment_period     = "300s"
          per_series_aligner   = "ALIGN_DELTA"
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = condition_absent.value.by
        }
      }
    }
    dynamic "condition_matched_log" {
      for_each = each.value.kind == "log" ? [local.log_lines[each.key]] : []
      content {
        filter           = "${local.from_functions} AND ${condition_matched_log.value.filter}"
        label_extractors = { (condition_matched_log.value.label) = "EXTRACT(jsonPayload.${condition_matched_log.value.field})" }
      }
    }
  }
  documentation {
    content   = each.value.doc
    mime_type = "text/markdown"
  }
  dynamic "alert_strategy" {
    for_each = each.value.kind == "absence" ? [] : [1]
    content {
      auto_close = each.value.kind == "log" ? "3600s" : "1800s"

      dynamic "notification_rate_limit" {
        for_each = each.value.kind == "log" ? [1] : []
        content {
          period = "3600s"
        }
      }
    }
  }

  # Google knows a metric when the service that has it is there.
  depends_on = [google_project_service.api, google_cloudfunctions2_function.function, module.pubsub]
}
