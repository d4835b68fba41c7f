# Where the two container images live. Cloud Run's own agent may read a registry of the same project.

resource "google_artifact_registry_repository" "images" {
  description   = "Images of the CareFlow agents"
  format        = "DOCKER"
  location      = var.region
  project       = var.project_id
  repository_id = var.project_name

  # A tag that could be moved would make yesterday's release another one.
  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    action = "DELETE"
    id     = "delete-old"

    condition {
      older_than = "2592000s"
    }
  }

  cleanup_policies {
    action = "KEEP"
    id     = "keep-to-roll-back"

    most_recent_versions {
      keep_count = 20
    }
  }

  depends_on = [google_project_service.apis]
}
