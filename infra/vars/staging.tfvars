# Put your own values here: the ones that stand here are made up, and plan but do not apply.
# Staging: nothing is kept warm, and everything may be destroyed again.

environment = "staging"
project_id  = "careflow-staging-000000"
region      = "us-central1"
timezone    = "America/New_York"
protected   = false

clinic = { name = "Riverside Hospital (practice)", phone = "+12125550199" }
twilio = { account_sid = "AC00000000000000000000000000000000", from_number = "+12125550100" }

elevenlabs = { voices = { en = "voiceEnglish", es = "voiceSpanish" } }

calls = { per_second = 1, in_flight = 5 }

# After the images are pushed and the secrets have a version (docs/google-cloud.md, step 6):
# release = {
#   caller_image               = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/caller@sha256:..."
#   pulse_image                = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/pulse@sha256:..."
#   elevenlabs_api_key_version = "1"
#   twilio_auth_token_version  = "1"
# }
