# The two queues. Limits are those of careflow.tasks.limits; a queue without limits would have Twilio dial 500 a second.

locals {
  # Cloud Tasks gives a task up only when its attempts AND its time are used up.
  queues = {
    calls = {
      per_second = var.calls.per_second
      in_flight  = var.calls.in_flight
      # The longest window of a round, where there is one a day: as long as the patient may still be phoned, the call is tried.
      retry_for = "86400s"
    }
    rounds = {
      per_second = 5
      in_flight  = 4
      # A round is closed when its calls have ended; the last may last as long as an attempt and two retries.
      retry_for = "7200s"
    }
  }
}

resource "google_cloud_tasks_queue" "queues" {
  for_each = local.queues

  location = var.region
  name     = "${var.project_name}-${each.key}"
  project  = var.project_id

  rate_limits {
    max_concurrent_dispatches = each.value.in_flight
    max_dispatches_per_second = each.value.per_second
  }

  retry_config {
    max_attempts       = 30
    max_backoff        = "60s"
    max_doublings      = 5
    max_retry_duration = each.value.retry_for
    min_backoff        = "2s"
  }

  # Names of tasks are ids; nothing of a patient is in what is logged.
  stackdriver_logging_config {
    sampling_ratio = 1
  }

  depends_on = [google_project_service.apis]
}
