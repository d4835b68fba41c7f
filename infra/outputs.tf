output "accounts" {
  description = "The service accounts made here, by part."
  value       = { for name, account in google_service_account.agents : name => account.email }
}

output "image_repository" {
  description = "Where the images are pushed: IMAGE=<this>/pulse:VERSION."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "scheduler" {
  description = "What scheduler/terraform must know of this environment; infra/scheduler_vars.py makes its file of values from both environments'."
  value = {
    environment              = var.environment
    project_id               = var.project_id
    project_name             = var.project_name
    pulse_agent_service_name = local.names.pulse
    pulse_agent_url          = local.urls.pulse
    region                   = var.region
    timezone                 = var.timezone
  }
}

output "secrets" {
  description = "Ids of the secrets, whose versions are added by hand."
  value       = { for name, secret in google_secret_manager_secret.secrets : name => secret.secret_id }
}

output "urls" {
  description = "Addresses of the services, which are these as soon as they are made."
  value       = local.urls
}
