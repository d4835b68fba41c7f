# One environment per apply and per state, each in a project of its own: a mistake in staging cannot reach production.
# Whoever applies is an owner of the project, or has the admin roles of what is made here (docs/google-cloud.md).

terraform {
  required_version = ">= 1.3"

  # The bucket is named at `terraform init`; see the Makefile.
  backend "gcs" {
    prefix = "careflow/infra"
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
  region  = var.region
}
