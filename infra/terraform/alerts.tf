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
      doc    = "A receiver refuses or does not answer. Ask `apssctl status` for the reason. Nothing is lost: what waits is kept for 7 days."
    }
    dead_letters = {
      name   = "there are dead letters"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"apss-dead-letters\""
      above  = 0
      for    = 0
      align  = "ALIGN_MAX"
      reduce = "REDUCE_MAX"
      by     = []
      doc    = "`apssctl dlq list` says which and why, `apssctl dlq replay` delivers them when the reason is gone. They are kept for 31 days."
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
    failing = {
      name   = "an integration is failing"
      filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.function["failing"].name}\" AND resource.type=\"cloud_run_revision\""
      above  = 2
      for    = 0
      align  = "ALIGN_DELTA"
      reduce = "REDUCE_SUM"
      by     = ["metric.label.integration"]
      doc    = "Its receiver fails its checks or refuses our key. `apssctl status` says why."
    }
    late_canaries = {
      name   = "a canary did not come out"
      filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.function["late_canaries"].name}\" AND resource.type=\"cloud_run_revision\""
      above  = 0
      for    = 0
      align  = "ALIGN_DELTA"
      reduce = "REDUCE_SUM"
      by     = ["metric.label.integration"]
      doc    = "A marked message did not reach the receiver for 15 minutes: the way is broken somewhere. `apssctl test NAME` tries its last part."
    }
    silent_agents = {
      name   = "an agent is silent"
      filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.function["silent_agents"].name}\" AND resource.type=\"cloud_run_revision\""
      above  = 0
      for    = 0
      align  = "ALIGN_DELTA"
      reduce = "REDUCE_SUM"
      by     = ["metric.label.agent"]
      doc    = "It sent no heartbeat for three of its intervals and did not say that it ends: somebody killed it, its node is gone, or it cannot publish."
    }
    unreadable_secrets = {
      name   = "a secret cannot be read"
      filter = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.function["unreadable_secrets"].name}\" AND resource.type=\"cloud_run_revision\""
      above  = 0
      for    = 0
      align  = "ALIGN_DELTA"
      reduce = "REDUCE_SUM"
      by     = ["metric.label.secret"]
      doc    = "It has no version, is disabled, or its grant is gone. The last value stands for an hour. `gcloud secrets versions list NAME`."
    }
  }

  # What must be there: acknowledged pushes on each way, and the scheduler's ticks.
  absences = {
    progress = {
      name   = "nothing arrives on a way"
      filter = "metric.type=\"pubsub.googleapis.com/subscription/push_request_count\" AND ${local.our_subscriptions} AND metric.labels.response_class=\"ack\""
      by     = ["resource.label.subscription_id"]
      doc    = "Not even a canary was acknowledged for half an hour. Either Health does not send them (see the other alert) or the function cannot be reached: `gcloud functions describe`."
    }
    ticks = {
      name   = "Health gets no ticks"
      filter = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"apss-health\" AND metric.labels.response_code_class=\"2xx\""
      by     = ["resource.label.service_name"]
      doc    = "Cloud Scheduler's job apss-tick fails or is paused: no checks, no canaries, no digests. `gcloud scheduler jobs describe apss-tick`."
    }
  }
}

resource "google_monitoring_alert_policy" "threshold" {
  for_each = local.thresholds

  project               = var.project
  display_name          = "APSS: ${each.value.name}"
  combiner              = "OR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = each.value.name
    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = "${each.value.for}s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = each.value.align
        cross_series_reducer = each.value.reduce
        group_by_fields      = each.value.by
      }
    }
  }
  documentation {
    content   = each.value.doc
    mime_type = "text/markdown"
  }
  alert_strategy {
    auto_close = "1800s"
  }
  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "absence" {
  for_each = local.absences

  project               = var.project
  display_name          = "APSS: ${each.value.name}"
  combiner              = "OR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = each.value.name
    condition_absent {
      filter   = each.value.filter
      duration = "1800s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = each.value.by
      }
    }
  }
  documentation {
    content   = each.value.doc
    mime_type = "text/markdown"
  }
  depends_on = [google_project_service.api]
}

# Secret Manager's notice, 14 days before what the receiver gave ends.
resource "google_monitoring_alert_policy" "secret_expiry" {
  count = local.any_expires ? 1 : 0

  project               = var.project
  display_name          = "APSS: a secret ends in 14 days"
  combiner              = "OR"
  notification_channels = local.channels
  user_labels           = local.labels

  conditions {
    display_name = "Secret Manager gave notice"
    condition_threshold {
      filter          = "metric.type=\"pubsub.googleapis.com/topic/send_message_operation_count\" AND resource.type=\"pubsub_topic\" AND resource.labels.topic_id=\"${google_pubsub_topic.secret_notices[0].name}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
  documentation {
    content   = "Compare `expires` in the variable secrets with today. Get a new value from the receiver, add it (`gcloud secrets versions add NAME --data-file=-`), and write its end into expires."
    mime_type = "text/markdown"
  }
  depends_on = [google_project_service.api]
}
