# Put your own values here: the ones that stand here are made up, and plan but do not apply.
# Production: the Caller is kept warm, since a patient who answers waits for it; nothing may be destroyed by mistake.

environment = "prod"
project_id  = "careflow-prod-000000"
region      = "us-central1"
timezone    = "America/New_York"
protected   = true
backup_days = 30

clinic = { name = "Riverside Hospital", phone = "+12125550199" }
twilio = { account_sid = "AC00000000000000000000000000000000", from_number = "+12125550101" }

elevenlabs = {
  voices         = { en = "voiceEnglish", es = "voiceSpanish" }
  zero_retention = true
}

calls = { per_second = 1, in_flight = 10 }

instances = {
  caller = { min = 1 }
  pulse  = { min = 1 }
  twilio = { min = 1 }
}

# After the images are pushed and the secrets have a version (docs/google-cloud.md, step 6):
# release = {
#   caller_image               = "us-central1-docker.pkg.dev/careflow-prod-000000/careflow/caller@sha256:..."
#   pulse_image                = "us-central1-docker.pkg.dev/careflow-prod-000000/careflow/pulse@sha256:..."
#   elevenlabs_api_key_version = "1"
#   twilio_auth_token_version  = "1"
# }
