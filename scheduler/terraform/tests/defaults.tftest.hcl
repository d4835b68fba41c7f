# What an apply with the values of vars/env.tfvars makes. Runs with `terraform test`; plans only.

variables {
  prod_project_id    = "careflow-prod-000000"
  staging_project_id = "careflow-staging-000000"

  pulse_agent_urls = {
    prod    = "https://careflow-agent-abc123-uc.a.run.app"
    staging = "https://careflow-agent-xyz789-uc.a.run.app"
  }
}

run "three_rounds_in_two_environments" {
  command = plan

  assert {
    condition = output.scheduler_job_names == {
      for environment in ["prod", "staging"] : environment => {
        evening = "careflow-evening-rounds"
        morning = "careflow-morning-rounds"
        noon    = "careflow-noon-rounds"
      }
    }
    error_message = "The jobs are not the three rounds of each environment."
  }

  assert {
    condition     = [for job in [google_cloud_scheduler_job.morning_rounds, google_cloud_scheduler_job.noon_rounds, google_cloud_scheduler_job.evening_rounds] : job["prod"].schedule] == ["15 8 * * *", "15 12 * * *", "15 20 * * *"]
    error_message = "The jobs do not fire at 8:15, 12:15 and 20:15."
  }

  assert {
    condition = alltrue([for environment, job in google_cloud_scheduler_job.morning_rounds :
      jsondecode(base64decode(job.http_target[0].body)) == {
        environment  = environment
        scheduleHour = 8
        source       = "cloud-scheduler"
        timezone     = "America/New_York"
        triggerType  = "scheduled"
      }
    ])
    error_message = "The morning's payload is not the one that Pulse expects."
  }

  assert {
    condition     = alltrue([for member in google_cloud_run_v2_service_iam_member.pulse_invoker : member.role == "roles/run.invoker" && member.name == "careflow-agent"])
    error_message = "The scheduler's account may do something else than invoke Pulse."
  }

  assert {
    condition     = jsonencode(output.hospital_job_names) == jsonencode({ prod = [], staging = [] })
    error_message = "There are jobs of hospitals, and no hospital."
  }
}

run "a_round_can_be_moved_within_its_window" {
  command = plan

  variables {
    round_times = { morning = "09:00" }
  }

  assert {
    condition     = google_cloud_scheduler_job.morning_rounds["prod"].schedule == "0 9 * * *"
    error_message = "The morning job was not moved to 9:00."
  }

  assert {
    condition     = jsondecode(base64decode(google_cloud_scheduler_job.morning_rounds["prod"].http_target[0].body)).scheduleHour == 8
    error_message = "Another hour in the payload means another round."
  }
}
