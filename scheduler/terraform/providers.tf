# One provider for both environments: for_each gives each resource its own project, and cannot choose a provider alias.
# Whoever applies needs rights in both projects, among them roles/iam.serviceAccountUser on the scheduler's account.

terraform {
  required_version = ">= 1.3"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.13.0"
    }
  }
}

provider "google" {
  region = var.region
}
