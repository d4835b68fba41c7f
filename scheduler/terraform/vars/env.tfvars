# Put your own values here: the ones that stand here are made up, and plan but do not apply.

# Project IDs
prod_project_id    = "careflow-prod-000000"
staging_project_id = "careflow-staging-000000"
project_name       = "careflow"

# Region
region = "us-central1"

# CareFlow Pulse Agent URLs (from Cloud Run deployment)
pulse_agent_urls = {
  prod    = "https://careflow-agent-abc123-uc.a.run.app"
  staging = "https://careflow-agent-xyz789-uc.a.run.app"
}

# Cloud Run service name
pulse_agent_service_name = "careflow-agent"
