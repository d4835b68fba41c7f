# The secrets' places and readers. What they hold is added by hand (`gcloud secrets versions add`): it is in no file and no state.
# A service runs with the versions that var.release names; a new version takes an apply, and going back takes another.

locals {
  secrets = {
    elevenlabs-api-key = "CAREFLOW_ELEVENLABS_API_KEY"
    hospitals          = "CAREFLOW_HOSPITALS, the file of hospital profiles; needed with more than one hospital"
    twilio-auth-token  = "CAREFLOW_TWILIO_AUTH_TOKEN"
  }
}

resource "google_secret_manager_secret" "secrets" {
  for_each = local.secrets

  annotations         = { setting = each.value }
  deletion_protection = var.protected
  project             = var.project_id
  secret_id           = "${var.project_name}-${each.key}"

  replication {
    auto {}
  }

  depends_on = [google_project_service.apis]
}
