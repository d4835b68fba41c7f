# What an apply with usual values makes. Runs with `terraform test`; plans only.

variables {
  environment = "staging"
  project_id  = "careflow-staging-000000"
  emails      = ["engineering@hospital.test"]
}

run "somebody_is_told_of_everything" {
  command = plan

  assert {
    condition     = length(google_monitoring_alert_policy.on_a_line) == 6 && length(google_monitoring_alert_policy.on_a_query) == 7
    error_message = "There are not thirteen policies."
  }

  assert {
    condition     = output.policies.CRITICAL == tolist(["CareFlow staging: A job fails again and again", "CareFlow staging: A red flag waits for a nurse", "CareFlow staging: A round is missing", "CareFlow staging: Pulse gives no sign of life"])
    error_message = "What cannot wait is something else."
  }

  assert {
    condition     = length(output.metrics) == 8 && alltrue([for name in output.metrics : startswith(name, "careflow_")])
    error_message = "The metrics are not the eight of metrics.tf."
  }
}

run "the_sweep_is_no_round" {
  command = plan

  assert {
    condition     = strcontains(google_logging_metric.counters["trigger_attempts"].filter, "job_id:\"-rounds\"")
    error_message = "The attempts of every job are counted."
  }
}

run "thresholds_reach_the_queries" {
  command = plan

  variables {
    thresholds = { trigger_seconds = 12, silence_minutes = 20 }
  }

  assert {
    condition     = endswith(google_monitoring_alert_policy.on_a_query["trigger_slow"].conditions[0].condition_prometheus_query_language[0].query, "> 12")
    error_message = "The p95 is compared with something else."
  }

  assert {
    condition     = strcontains(google_monitoring_alert_policy.on_a_query["sweep_silent"].conditions[0].condition_prometheus_query_language[0].query, "[20m]")
    error_message = "The silence is measured over another time."
  }
}
