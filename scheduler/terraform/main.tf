# The rounds of a day, in both environments: 6 APIs, 2 service accounts, 2 bindings, 6 jobs; and the hospitals' own jobs.

locals {
  deploy_project_ids = {
    for environment, project in { prod = var.prod_project_id, staging = var.staging_project_id } :
    environment => project if contains(var.environments, environment)
  }

  apis = ["cloudscheduler.googleapis.com", "iam.googleapis.com", "run.googleapis.com"]

  # scheduleHour names the round and is what Pulse knows it by (CAREFLOW_ROUND_HOURS); when the job fires is another matter.
  rounds = {
    morning = { hour = 8, purpose = "Post-breakfast medication adherence" }
    noon    = { hour = 12, purpose = "Mid-day symptom check" }
    evening = { hour = 20, purpose = "Evening medication and review" }
  }

  schedules = { for round, at in var.round_times : round => local.cron[at] }

  # "08:15" as cron writes it: "15 8 * * *".
  cron = {
    for at in toset(concat(values(var.round_times), flatten([for hospital in var.hospitals : values(hospital.round_times)]))) :
    at => join(" ", [tonumber(split(":", at)[1]), tonumber(split(":", at)[0]), "* * *"])
  }

  triggers = {
    for environment in keys(local.deploy_project_ids) : environment => {
      environment = environment
      source      = "cloud-scheduler"
      timezone    = var.timezone
      triggerType = "scheduled"
    }
  }

  # Without it Cloud Scheduler sends application/octet-stream, which Pulse refuses with 415.
  headers = { "Content-Type" = "application/json" }

  hospital_rounds = merge(flatten([
    for key, hospital in var.hospitals : [
      for environment in setintersection(hospital.environments, var.environments) : {
        for round in hospital.rounds : "${environment}/${key}/${round}" => {
          environment = environment
          hospital    = hospital
          key         = key
          round       = round
          schedule    = try(local.cron[hospital.round_times[round]], local.schedules[round])
          timezone    = coalesce(hospital.timezone, var.timezone)
        }
      }
    ]
  ])...)
}

resource "google_project_service" "apis" {
  for_each = {
    for pair in setproduct(keys(local.deploy_project_ids), local.apis) :
    "${pair[0]}/${pair[1]}" => { environment = pair[0], service = pair[1] }
  }

  # Destroying the jobs must not switch off APIs that the agents still need.
  disable_on_destroy = false
  project            = local.deploy_project_ids[each.value.environment]
  service            = each.value.service
}

resource "google_service_account" "scheduler" {
  for_each = local.deploy_project_ids

  account_id   = "${var.project_name}-scheduler"
  description  = "Triggers the rounds of the CareFlow Pulse Agent, and may do nothing else."
  display_name = "CareFlow scheduler (${each.key})"
  project      = each.value

  depends_on = [google_project_service.apis]

  lifecycle {
    precondition {
      condition     = var.prod_project_id != var.staging_project_id
      error_message = "prod_project_id and staging_project_id are the same project: the jobs of the two environments would have the same names."
    }
  }
}

# On this one service: a binding on the project would open every service in it.
resource "google_cloud_run_v2_service_iam_member" "pulse_invoker" {
  for_each = local.deploy_project_ids

  location = var.region
  member   = google_service_account.scheduler[each.key].member
  name     = var.pulse_agent_service_name
  project  = each.value
  role     = "roles/run.invoker"

  depends_on = [google_project_service.apis]
}

resource "google_cloud_scheduler_job" "morning_rounds" {
  for_each = local.deploy_project_ids

  attempt_deadline = var.attempt_deadline
  description      = local.rounds.morning.purpose
  name             = "${var.project_name}-morning-rounds"
  project          = each.value
  region           = var.region
  schedule         = local.schedules.morning
  time_zone        = var.timezone

  http_target {
    body        = base64encode(jsonencode(merge(local.triggers[each.key], { scheduleHour = local.rounds.morning.hour })))
    headers     = local.headers
    http_method = "POST"
    uri         = var.pulse_agent_urls[each.key]

    oidc_token {
      audience              = var.pulse_agent_urls[each.key]
      service_account_email = google_service_account.scheduler[each.key].email
    }
  }

  retry_config {
    max_backoff_duration = var.retry.max_backoff
    max_retry_duration   = var.retry.max_duration
    min_backoff_duration = var.retry.min_backoff
    retry_count          = var.retry.count
  }

  depends_on = [google_cloud_run_v2_service_iam_member.pulse_invoker]
}

resource "google_cloud_scheduler_job" "noon_rounds" {
  for_each = local.deploy_project_ids

  attempt_deadline = var.attempt_deadline
  description      = local.rounds.noon.purpose
  name             = "${var.project_name}-noon-rounds"
  project          = each.value
  region           = var.region
  schedule         = local.schedules.noon
  time_zone        = var.timezone

  http_target {
    body        = base64encode(jsonencode(merge(local.triggers[each.key], { scheduleHour = local.rounds.noon.hour })))
    headers     = local.headers
    http_method = "POST"
    uri         = var.pulse_agent_urls[each.key]

    oidc_token {
      audience              = var.pulse_agent_urls[each.key]
      service_account_email = google_service_account.scheduler[each.key].email
    }
  }

  retry_config {
    max_backoff_duration = var.retry.max_backoff
    max_retry_duration   = var.retry.max_duration
    min_backoff_duration = var.retry.min_backoff
    retry_count          = var.retry.count
  }

  depends_on = [google_cloud_run_v2_service_iam_member.pulse_invoker]
}

resource "google_cloud_scheduler_job" "evening_rounds" {
  for_each = local.deploy_project_ids

  attempt_deadline = var.attempt_deadline
  description      = local.rounds.evening.purpose
  name             = "${var.project_name}-evening-rounds"
  project          = each.value
  region           = var.region
  schedule         = local.schedules.evening
  time_zone        = var.timezone

  http_target {
    body        = base64encode(jsonencode(merge(local.triggers[each.key], { scheduleHour = local.rounds.evening.hour })))
    headers     = local.headers
    http_method = "POST"
    uri         = var.pulse_agent_urls[each.key]

    oidc_token {
      audience              = var.pulse_agent_urls[each.key]
      service_account_email = google_service_account.scheduler[each.key].email
    }
  }

  retry_config {
    max_backoff_duration = var.retry.max_backoff
    max_retry_duration   = var.retry.max_duration
    min_backoff_duration = var.retry.min_backoff
    retry_count          = var.retry.count
  }

  depends_on = [google_cloud_run_v2_service_iam_member.pulse_invoker]
}

resource "google_cloud_scheduler_job" "hospital_rounds" {
  for_each = local.hospital_rounds

  attempt_deadline = var.attempt_deadline
  description      = "${each.value.hospital.name}: ${local.rounds[each.value.round].purpose}"
  name             = "${var.project_name}-${each.value.round}-rounds-${each.value.key}"
  project          = local.deploy_project_ids[each.value.environment]
  region           = var.region
  schedule         = each.value.schedule
  time_zone        = each.value.timezone

  http_target {
    body = base64encode(jsonencode(merge(local.triggers[each.value.environment], {
      hospitalId   = each.value.hospital.id
      scheduleHour = local.rounds[each.value.round].hour
      timezone     = each.value.timezone
    })))
    headers     = local.headers
    http_method = "POST"
    uri         = var.pulse_agent_urls[each.value.environment]

    oidc_token {
      audience              = var.pulse_agent_urls[each.value.environment]
      service_account_email = google_service_account.scheduler[each.value.environment].email
    }
  }

  retry_config {
    max_backoff_duration = var.retry.max_backoff
    max_retry_duration   = var.retry.max_duration
    min_backoff_duration = var.retry.min_backoff
    retry_count          = var.retry.count
  }

  depends_on = [google_cloud_run_v2_service_iam_member.pulse_invoker]
}
