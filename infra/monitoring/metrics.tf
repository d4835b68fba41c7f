# What is counted in the logs. There are no metrics cloudscheduler.googleapis.com/job/...: the jobs' attempts are log entries, too.
# Labels are ids, codes and outcomes, never anything of a patient's.

locals {
  pulse  = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.agent_service_names.pulse}\""
  caller = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name:\"${var.agent_service_names.caller}\""
  agents = "resource.type=\"cloud_run_revision\" AND jsonPayload.component:*"

  # Of the rounds' jobs only: the sweep runs 288 times a day and would hide them.
  attempts = "resource.type=\"cloud_scheduler_job\" AND resource.labels.job_id:\"${var.project_name}-\" AND resource.labels.job_id:\"-rounds\" AND jsonPayload.\"@type\":\"AttemptFinished\""

  counters = {
    alerts_raised = {
      description = "Alerts that a person must see."
      filter      = "${local.agents} AND jsonPayload.message=\"Alert raised\""
      labels      = { hospital = "jsonPayload.hospitalId", kind = "jsonPayload.kind" }
    }
    calls_ended = {
      description = "Calls of a round that have their outcome. Who is skipped at planning has none to end."
      filter      = "${local.pulse} AND jsonPayload.message=\"Call ended\""
      labels      = { hospital = "jsonPayload.hospitalId", outcome = "jsonPayload.outcome" }
    }
    rounds_closed = {
      description = "Rounds that are over, with an outcome for everybody."
      filter      = "${local.pulse} AND jsonPayload.message=\"Round closed\""
      labels      = { hospital = "jsonPayload.hospitalId" }
    }
    speech_errors = {
      description = "Requests and listening sessions that ElevenLabs refused or broke off."
      filter      = "${local.caller} AND jsonPayload.message=\"Speech error\""
      labels      = { code = "jsonPayload.code", operation = "jsonPayload.operation" }
    }
    sweeps = {
      description = "Passes of Pulse over what is open and overdue: its sign of life."
      filter      = "${local.pulse} AND jsonPayload.message=\"Sweep done\""
      labels      = {}
    }
    telephone_errors = {
      description = "Requests that Twilio refused or left unanswered. An attempt that came too late to be dialled is none."
      filter      = "${local.caller} AND jsonPayload.message=\"Telephone error\" AND jsonPayload.code!=\"too-late\""
      labels      = { code = "jsonPayload.code", operation = "jsonPayload.operation" }
    }
    trigger_attempts = {
      description = "Deliveries of the rounds' jobs; result is ERROR when one failed, status why."
      filter      = local.attempts
      # status is absent after a success: what tells the two apart is the severity.
      labels = { result = "severity", status = "jsonPayload.status" }
    }
  }

  distributions = {
    trigger_seconds = {
      description = "How long Pulse took to plan a triggered round."
      filter      = "${local.pulse} AND jsonPayload.message=\"Scheduled rounds triggered\""
      labels      = { hospital = "jsonPayload.hospitalId" }
      value       = "EXTRACT(jsonPayload.seconds)"
    }
  }
}

resource "google_logging_metric" "counters" {
  for_each = local.counters

  description      = each.value.description
  filter           = each.value.filter
  label_extractors = { for label, field in each.value.labels : label => "EXTRACT(${field})" }
  name             = "careflow_${each.key}"

  metric_descriptor {
    metric_kind = "DELTA"
    unit        = "1"
    value_type  = "INT64"

    dynamic "labels" {
      for_each = each.value.labels

      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  depends_on = [google_project_service.apis]
}

resource "google_logging_metric" "distributions" {
  for_each = local.distributions

  description      = each.value.description
  filter           = each.value.filter
  label_extractors = { for label, field in each.value.labels : label => "EXTRACT(${field})" }
  name             = "careflow_${each.key}"
  value_extractor  = each.value.value

  bucket_options {
    explicit_buckets {
      bounds = [0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 25, 30, 45, 60, 120, 300, 600, 1800]
    }
  }

  metric_descriptor {
    metric_kind = "DELTA"
    unit        = "s"
    value_type  = "DISTRIBUTION"

    dynamic "labels" {
      for_each = each.value.labels

      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  depends_on = [google_project_service.apis]
}
