output "hospital_job_names" {
  description = "Names of the hospitals' own jobs, by environment."
  value = {
    for environment in keys(local.deploy_project_ids) : environment => sort([
      for key, job in google_cloud_scheduler_job.hospital_rounds : job.name if startswith(key, "${environment}/")
    ])
  }
}

output "scheduler_job_names" {
  description = "Names of the default jobs, by environment and round."
  value = {
    for environment in keys(local.deploy_project_ids) : environment => {
      evening = google_cloud_scheduler_job.evening_rounds[environment].name
      morning = google_cloud_scheduler_job.morning_rounds[environment].name
      noon    = google_cloud_scheduler_job.noon_rounds[environment].name
    }
  }
}

output "scheduler_service_account_emails" {
  description = "The accounts in whose name the jobs call Pulse, by environment: Pulse's CAREFLOW_SCHEDULER_ACCOUNT."
  value       = { for environment, account in google_service_account.scheduler : environment => account.email }
}
