# The metrics of metrics.tf as PromQL knows them. A log's metric must be told its kind of resource, and loses the dots of its name.

locals {
  job = "monitored_resource=\"cloud_scheduler_job\""
  run = "monitored_resource=\"cloud_run_revision\""

  log = "logging_googleapis_com:user_careflow_"

  alerts_raised    = "${local.log}alerts_raised{${local.run}}"
  calls_attempted  = "${local.log}calls_ended{${local.run},outcome!=\"skipped\"}"
  calls_completed  = "${local.log}calls_ended{${local.run},outcome=\"completed\"}"
  calls_ended      = "${local.log}calls_ended{${local.run}}"
  calls_unreached  = "${local.log}calls_ended{${local.run},outcome=~\"unreachable|cancelled\"}"
  deliveries       = "${local.log}trigger_attempts{${local.job}}"
  failures         = "${local.log}trigger_attempts{${local.job},result=\"ERROR\"}"
  rounds_closed    = "${local.log}rounds_closed{${local.run}}"
  speech_errors    = "${local.log}speech_errors{${local.run}}"
  successes        = "${local.log}trigger_attempts{${local.job},result!=\"ERROR\"}"
  sweeps           = "${local.log}sweeps{${local.run}}"
  telephone_errors = "${local.log}telephone_errors{${local.run}}"
  trigger_buckets  = "${local.log}trigger_seconds_bucket{${local.run}}"
}
