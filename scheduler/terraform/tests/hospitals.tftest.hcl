# Jobs of the hospitals' own. Runs with `terraform test`; plans only.

variables {
  prod_project_id    = "careflow-prod-000000"
  staging_project_id = "careflow-staging-000000"

  pulse_agent_urls = {
    prod    = "https://careflow-agent-abc123-uc.a.run.app"
    staging = "https://careflow-agent-xyz789-uc.a.run.app"
  }

  hospitals = {
    "hospital-a" = { id = "hosp-001", name = "General Hospital" }
    "hospital-b" = {
      id           = "hosp-002"
      name         = "City Medical"
      environments = ["prod"]
      rounds       = ["morning", "evening"]
      round_times  = { morning = "08:30" }
      timezone     = "America/Chicago"
    }
  }
}

run "a_hospital_adds_complete_jobs" {
  command = plan

  assert {
    condition = jsonencode(output.hospital_job_names) == jsonencode({
      prod = [
        "careflow-evening-rounds-hospital-a", "careflow-evening-rounds-hospital-b",
        "careflow-morning-rounds-hospital-a", "careflow-morning-rounds-hospital-b",
        "careflow-noon-rounds-hospital-a",
      ]
      staging = ["careflow-evening-rounds-hospital-a", "careflow-morning-rounds-hospital-a", "careflow-noon-rounds-hospital-a"]
    })
    error_message = "The hospitals' jobs are not those of their environments and rounds."
  }

  assert {
    condition = jsondecode(base64decode(google_cloud_scheduler_job.hospital_rounds["prod/hospital-b/morning"].http_target[0].body)) == {
      environment  = "prod"
      hospitalId   = "hosp-002"
      scheduleHour = 8
      source       = "cloud-scheduler"
      timezone     = "America/Chicago"
      triggerType  = "scheduled"
    }
    error_message = "The payload does not name the hospital and its time zone."
  }

  assert {
    condition = (
      google_cloud_scheduler_job.hospital_rounds["prod/hospital-b/morning"].schedule == "30 8 * * *" &&
      google_cloud_scheduler_job.hospital_rounds["prod/hospital-b/evening"].schedule == "15 20 * * *" &&
      google_cloud_scheduler_job.hospital_rounds["prod/hospital-b/morning"].time_zone == "America/Chicago"
    )
    error_message = "The hospital's own time and zone are not used, or the default is lost."
  }
}
