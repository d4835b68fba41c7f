# Who is told of what. At three rounds a day "more than 5 % failed in an hour" means nothing: what counts is the round.
# A count is compared with half less than the number meant: PromQL's increase() may answer 2.97 for three events.

locals {
  # One line of the log is enough. Pulse writes them for what did not happen as well, at its sweep (docs/monitoring.md).
  on_a_line = {
    alert_waiting = {
      title    = "An alert waits for a nurse"
      severity = "WARNING"
      filter   = "${local.pulse} AND jsonPayload.message=\"Alert not acknowledged\" AND jsonPayload.kind!=\"red-flag\""
      labels   = { hospital = "jsonPayload.hospitalId", kind = "jsonPayload.kind" }
      says     = "Nobody has acknowledged it for hours. Look at `careflow alerts list`, phone the patient, then `careflow alerts ack ALERT`."
      section  = "monitor"
      every    = "3600s"
    }
    red_flag_waiting = {
      title    = "A red flag waits for a nurse"
      severity = "CRITICAL"
      filter   = "${local.pulse} AND jsonPayload.message=\"Alert not acknowledged\" AND jsonPayload.kind=\"red-flag\""
      labels   = { hospital = "jsonPayload.hospitalId" }
      says     = "A patient named a critical symptom and nobody has acknowledged it. Phone the patient now; `careflow alerts list` says whom, then `careflow alerts ack ALERT`."
      section  = "monitor"
      every    = "900s"
    }
    round_late = {
      title    = "A round came late"
      severity = "WARNING"
      filter   = "${local.pulse} AND jsonPayload.message=\"Round late\""
      labels   = { hospital = "jsonPayload.hospitalId", round = "jsonPayload.roundId" }
      says     = "It was opened long after its hour, and phones within what is left of its window. Find out why the job came late: `careflow jobs history JOB`."
      section  = "when-something-is-wrong"
      every    = "3600s"
    }
    round_missing = {
      title    = "A round is missing"
      severity = "CRITICAL"
      filter   = "${local.pulse} AND jsonPayload.message=\"Round missing\""
      labels   = { hospital = "jsonPayload.hospitalId", round = "jsonPayload.roundId" }
      says     = "Patients are due and no trigger has come. Is the job paused or failing? Run it by hand: within the round's window it reaches everybody who is due."
      section  = "when-something-is-wrong"
      every    = "1800s"
    }
    round_not_closed = {
      title    = "A round does not end"
      severity = "ERROR"
      filter   = "${local.pulse} AND jsonPayload.message=\"Round not closed\""
      labels   = { hospital = "jsonPayload.hospitalId", round = "jsonPayload.roundId" }
      says     = "Its window is over, and some patient has no outcome. Look for errors of Pulse with this round's id, and whether the queue of rounds is paused."
      section  = "when-something-is-wrong"
      every    = "3600s"
    }
    software_error = {
      title    = "An error of ours"
      severity = "ERROR"
      filter   = "${local.agents} AND severity>=ERROR"
      labels   = { component = "jsonPayload.component", error = "jsonPayload.error" }
      says     = "Something failed that should not. The line has the ids, the error's class and its place."
      section  = "when-something-is-wrong"
      every    = "1800s"
    }
  }

  on_a_query = {
    failures_in_a_row = {
      title    = "A job fails again and again"
      severity = "CRITICAL"
      query    = "(sum by (job_id) (increase(${local.failures}[45m])) > ${var.thresholds.failures_in_a_row} - 0.5) unless on (job_id) (sum by (job_id) (increase(${local.successes}[45m])) > 0.5)"
      says     = "No delivery of this job has succeeded in 45 minutes. The status of its attempts says what to do."
      section  = "when-something-is-wrong"
    }
    retry_rate = {
      title    = "Jobs need retries"
      severity = "WARNING"
      query    = "(sum(increase(${local.failures}[1d])) / sum(increase(${local.deliveries}[1d])) > ${var.thresholds.retry_share}) and (sum(increase(${local.failures}[1d])) > ${var.thresholds.retries} - 0.5)"
      says     = "The rounds came, but not at the first try. The status of the failed attempts says why."
      section  = "when-something-is-wrong"
    }
    round_failed = {
      title    = "A round reached too few"
      severity = "ERROR"
      query    = "(sum by (hospital) (increase(${local.calls_unreached}[6h])) / sum by (hospital) (increase(${local.calls_attempted}[6h])) > ${var.thresholds.unreached_share}) and on (hospital) (sum by (hospital) (increase(${local.calls_attempted}[6h])) > ${var.thresholds.unreached_calls} - 0.5)"
      says     = "Most patients of the last hours could not be reached. Look at the telephone and speech errors, and at `careflow rounds show ROUND`; each of these patients has an alert."
      section  = "when-something-is-wrong"
    }
    speech_errors = {
      title    = "Speech fails"
      severity = "ERROR"
      query    = "sum(increase(${local.speech_errors}[15m])) > ${var.thresholds.speech_errors} - 0.5"
      says     = "ElevenLabs refuses or breaks off; patients are asked by keypad or hear an apology. The code says why: quota_exceeded, concurrent sessions, key."
      section  = "when-something-is-wrong"
    }
    sweep_silent = {
      title    = "Pulse gives no sign of life"
      severity = "CRITICAL"
      query    = "(sum(increase(${local.sweeps}[${var.thresholds.silence_minutes}m])) or vector(0)) < 0.5"
      says     = "No sweep has come to its end. Until one does, nobody would be told of a missing round or a waiting alert. Is the job ${var.project_name}-sweep paused, Pulse down, or its database away?"
      section  = "when-something-is-wrong"
    }
    telephone_errors = {
      title    = "The telephone fails"
      severity = "ERROR"
      query    = "sum(increase(${local.telephone_errors}[15m])) > ${var.thresholds.telephone_errors} - 0.5"
      says     = "Twilio refuses or does not answer. The code is in Twilio's list of errors: account suspended, number not allowed, too many requests."
      section  = "when-something-is-wrong"
    }
    trigger_slow = {
      title    = "Rounds are planned slowly"
      severity = "WARNING"
      query    = "histogram_quantile(0.95, sum by (le) (increase(${local.trigger_buckets}[1h]))) > ${var.thresholds.trigger_seconds}"
      says     = "Pulse answers a trigger when the round is planned, in seconds. A longer attempt_deadline cures nothing: look why the database is slow."
      section  = "when-something-is-wrong"
    }
  }

  told = {
    for severity in ["CRITICAL", "ERROR", "WARNING"] : severity => concat(
      [for channel in google_monitoring_notification_channel.emails : channel.name],
      var.channels.all,
      severity == "CRITICAL" ? var.channels.critical : [],
    )
  }

  links = {
    for section in ["monitor", "when-something-is-wrong"] :
    section => var.runbook_url == null ? [] : [{ display_name = "Runbook", url = "${var.runbook_url}#${section}" }]
  }
}

resource "google_monitoring_notification_channel" "emails" {
  for_each = var.emails

  display_name = "CareFlow: ${each.value}"
  labels       = { email_address = each.value }
  type         = "email"

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_alert_policy" "on_a_line" {
  for_each = local.on_a_line

  combiner              = "OR"
  display_name          = "CareFlow ${var.environment}: ${each.value.title}"
  notification_channels = local.told[each.value.severity]
  severity              = each.value.severity

  # The only condition, as it must be.
  conditions {
    display_name = each.value.title

    condition_matched_log {
      filter           = each.value.filter
      label_extractors = { for label, field in each.value.labels : label => "EXTRACT(${field})" }
    }
  }

  # The line comes again with every sweep, until it is put right.
  alert_strategy {
    auto_close = "3600s"

    notification_rate_limit {
      period = each.value.every
    }
  }

  documentation {
    content   = each.value.says
    mime_type = "text/markdown"
    subject   = "CareFlow ${var.environment}: ${each.value.title}"

    dynamic "links" {
      for_each = local.links[each.value.section]

      content {
        display_name = links.value.display_name
        url          = links.value.url
      }
    }
  }

  depends_on = [google_project_service.apis]
}

resource "google_monitoring_alert_policy" "on_a_query" {
  for_each = local.on_a_query

  combiner              = "OR"
  display_name          = "CareFlow ${var.environment}: ${each.value.title}"
  notification_channels = local.told[each.value.severity]
  severity              = each.value.severity

  conditions {
    display_name = each.value.title

    condition_prometheus_query_language {
      # A metric of the log is unknown to the check until its first line came, which may be a day after the apply.
      disable_metric_validation = true
      duration                  = "0s"
      evaluation_interval       = "60s"
      query                     = each.value.query
    }
  }

  alert_strategy {
    auto_close = "3600s"
  }

  documentation {
    content   = each.value.says
    mime_type = "text/markdown"
    subject   = "CareFlow ${var.environment}: ${each.value.title}"

    dynamic "links" {
      for_each = local.links[each.value.section]

      content {
        display_name = links.value.display_name
        url          = links.value.url
      }
    }
  }

  depends_on = [google_logging_metric.counters, google_logging_metric.distributions]
}
