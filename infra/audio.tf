# The cache of spoken prompts, which all instances of the Caller share. What is lost is rendered again; a prompt may hold a first name.

resource "google_storage_bucket" "audio" {
  force_destroy               = true
  location                    = var.region
  name                        = "${var.project_id}-${var.project_name}-audio"
  project                     = var.project_id
  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      age = 30
    }
  }

  # Deleted is deleted: a cache needs no second chance, and names are not kept for one.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  depends_on = [google_project_service.apis]
}
