output "dashboard" {
  description = "The dashboard's name."
  value       = google_monitoring_dashboard.rounds.id
}

output "metrics" {
  description = "The metrics that are counted in the logs."
  value       = sort([for metric in merge(google_logging_metric.counters, google_logging_metric.distributions) : metric.name])
}

output "policies" {
  description = "What somebody is told of, by severity."
  value = {
    for severity in ["CRITICAL", "ERROR", "WARNING"] : severity => sort([
      for policy in concat(values(google_monitoring_alert_policy.on_a_line), values(google_monitoring_alert_policy.on_a_query)) :
      policy.display_name if policy.severity == severity
    ])
  }
}
