# One environment per apply and per state, as in infra/: each project watches itself.
# It may be applied before or after infra/: nothing here refers to a service by more than its name.

terraform {
  required_version = ">= 1.3"

  # The bucket is named at `terraform init`.
  backend "gcs" {
    prefix = "careflow/monitoring"
  }

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.13.0"
    }
  }
}

provider "google" {
  project = var.project_id
}

resource "google_project_service" "apis" {
  for_each = toset(["logging.googleapis.com", "monitoring.googleapis.com"])

  # Destroying the policies must not switch off what others log.
  disable_on_destroy = false
  service            = each.value
}
