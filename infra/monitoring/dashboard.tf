# One page to look at: the jobs, the rounds, the calls, the vendors, the services. Every query is PromQL.

locals {
  charts = [
    {
      title   = "Deliveries of the rounds' jobs, by result, a day"
      bars    = true
      queries = { "deliveries" = "sum by (job_id, result) (increase(${local.deliveries}[1d]))" }
    },
    {
      title   = "Success by job, part of the deliveries of a week"
      bars    = false
      queries = { "success" = "sum by (job_id) (increase(${local.successes}[7d])) / sum by (job_id) (increase(${local.deliveries}[7d]))" }
    },
    {
      title = "Planning a round, seconds"
      bars  = false
      queries = {
        "median" = "histogram_quantile(0.5, sum by (le) (increase(${local.trigger_buckets}[1d])))"
        "p95"    = "histogram_quantile(0.95, sum by (le) (increase(${local.trigger_buckets}[1d])))"
      }
    },
    {
      title   = "Rounds closed, by hospital, a day"
      bars    = true
      queries = { "closed" = "sum by (hospital) (increase(${local.rounds_closed}[1d]))" }
    },
    {
      title   = "Calls by outcome, an hour"
      bars    = true
      queries = { "ended" = "sum by (outcome) (increase(${local.calls_ended}[1h]))" }
    },
    {
      title   = "Calls completed, part of those attempted in a day, by hospital"
      bars    = false
      queries = { "completed" = "sum by (hospital) (increase(${local.calls_completed}[1d])) / sum by (hospital) (increase(${local.calls_attempted}[1d]))" }
    },
    {
      title   = "Alerts raised, by kind, a day"
      bars    = true
      queries = { "raised" = "sum by (kind) (increase(${local.alerts_raised}[1d]))" }
    },
    {
      title   = "Sweeps, an hour (12 are right)"
      bars    = false
      queries = { "done" = "sum(increase(${local.sweeps}[1h]))" }
    },
    {
      title   = "Twilio errors, by code, an hour"
      bars    = true
      queries = { "errors" = "sum by (code, operation) (increase(${local.telephone_errors}[1h]))" }
    },
    {
      title   = "ElevenLabs errors, by code, an hour"
      bars    = true
      queries = { "errors" = "sum by (code, operation) (increase(${local.speech_errors}[1h]))" }
    },
    {
      title   = "Requests by service and class of answer, a second"
      bars    = false
      queries = { "requests" = "sum by (service_name, response_code_class) (rate(run_googleapis_com:request_count{${local.run}}[5m]))" }
    },
    {
      title   = "Tasks waiting, by queue"
      bars    = false
      queries = { "waiting" = "max by (queue_id) (cloudtasks_googleapis_com:queue_depth{monitored_resource=\"cloud_tasks_queue\"})" }
    },
  ]

  # Two beside each other, on a grid of 48 columns.
  tiles = [
    for number, chart in local.charts : {
      height = 16
      width  = 24
      xPos   = number % 2 * 24
      yPos   = floor(number / 2) * 16
      widget = {
        title = chart.title
        xyChart = {
          dataSets = [
            # A legend hides the labels, and is needed only where two queries would look alike.
            for legend, query in chart.queries : merge({
              plotType        = chart.bars ? "STACKED_BAR" : "LINE"
              targetAxis      = "Y1"
              timeSeriesQuery = { prometheusQuery = query }
            }, length(chart.queries) > 1 ? { legendTemplate = legend } : {})
          ]
        }
      }
    }
  ]
}

resource "google_monitoring_dashboard" "rounds" {
  dashboard_json = jsonencode({
    displayName  = "CareFlow ${var.environment}: rounds"
    mosaicLayout = { columns = 48, tiles = local.tiles }
  })

  depends_on = [google_logging_metric.counters, google_logging_metric.distributions]
}
