locals {
  tiles = concat([
    { title = "Oldest message that waits, by way", metric = "pubsub.googleapis.com/subscription/oldest_unacked_message_age", on = local.our_subscriptions, align = "ALIGN_MAX", reduce = "REDUCE_MAX", by = ["resource.label.subscription_id"] },
    { title = "Messages that wait, by way", metric = "pubsub.googleapis.com/subscription/num_undelivered_messages", on = local.our_subscriptions, align = "ALIGN_MAX", reduce = "REDUCE_MAX", by = ["resource.label.subscription_id"] },
    { title = "Pushes a second, by way and answer", metric = "pubsub.googleapis.com/subscription/push_request_count", on = local.our_subscriptions, align = "ALIGN_RATE", reduce = "REDUCE_SUM", by = ["resource.label.subscription_id", "metric.label.response_class"] },
    { title = "Messages published a second, by topic", metric = "pubsub.googleapis.com/topic/send_message_operation_count", on = "resource.type=\"pubsub_topic\" AND resource.labels.topic_id=monitoring.regex.full_match(\"apss-.*\")", align = "ALIGN_RATE", reduce = "REDUCE_SUM", by = ["resource.label.topic_id"] },
    { title = "Dead letters", metric = "pubsub.googleapis.com/subscription/num_undelivered_messages", on = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"apss-dead-letters\"", align = "ALIGN_MAX", reduce = "REDUCE_MAX", by = [] },
    { title = "Time of a push at the functions, 99th percentile", metric = "run.googleapis.com/request_latencies", on = local.our_services, align = "ALIGN_PERCENTILE_99", reduce = "REDUCE_MAX", by = ["resource.label.service_name"] },
    { title = "Running copies of the functions", metric = "run.googleapis.com/container/instance_count", on = local.our_services, align = "ALIGN_MAX", reduce = "REDUCE_SUM", by = ["resource.label.service_name"] },
    ], [for key, line in local.log_lines :
    { title = "Log: ${line.name}", metric = "logging.googleapis.com/user/${google_logging_metric.function[key].name}", on = "resource.type=\"cloud_run_revision\"", align = "ALIGN_DELTA", reduce = "REDUCE_SUM", by = ["metric.label.${line.label}"] }
  ])
  our_services = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=monitoring.regex.full_match(\"apss-(forward|notify|health)\")"
}

resource "google_monitoring_dashboard" "apss" {
  project = var.project

  dashboard_json = jsonencode({
    displayName = "APSS"
    labels      = { apss = "" }
    mosaicLayout = {
      columns = 48
      tiles = [for n, t in local.tiles : {
        xPos = (n % 2) * 24, yPos = floor(n / 2) * 16, width = 24, height = 16
        widget = {
          title = t.title
          xyChart = {
            dataSets = [{
              plotType = "LINE"
              timeSeriesQuery = {
                timeSeriesFilter = {
                  filter = "metric.type=\"${t.metric}\" AND ${t.on}"
                  aggregation = {
                    alignmentPeriod    = "60s"
                    perSeriesAligner   = t.align
                    crossSeriesReducer = t.reduce
                    groupByFields      = t.by
                  }
                }
              }
            }]
          }
        }
      }]
    }
  })
  depends_on = [google_project_service.api]
}
