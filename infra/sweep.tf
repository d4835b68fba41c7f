# Between requests an instance has no CPU, so nothing of Pulse's own wakes it: this does, every five minutes. The sweep settles
# what a lost instance left open and reports alerts that nobody acknowledged and rounds that did not come.

resource "google_cloud_scheduler_job" "sweep" {
  for_each = toset(var.release == null ? [] : ["sweep"])

  attempt_deadline = "180s"
  description      = "Settles what is open, reports what is overdue"
  name             = "${var.project_name}-sweep"
  project          = var.project_id
  region           = var.region
  schedule         = "*/5 * * * *"
  time_zone        = "Etc/UTC"

  http_target {
    body        = base64encode("{}")
    headers     = { "Content-Type" = "application/json" }
    http_method = "POST"
    uri         = "${local.urls.pulse}/tasks/sweep"

    oidc_token {
      audience              = local.urls.pulse
      service_account_email = google_service_account.agents["queue"].email
    }
  }

  # The next one comes in five minutes anyway.
  retry_config {
    retry_count = 0
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invokers]
}
