# What an apply makes of one environment. Runs with `terraform test`, against a mock of the provider: nothing is asked or made.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  environment = "staging"
  project_id  = "careflow-staging-000000"
  clinic      = { name = "Riverside Hospital", phone = "+12125550199" }
  elevenlabs  = { voices = { en = "voiceEnglish" } }
  twilio      = { account_sid = "AC00000000000000000000000000000000", from_number = "+12125550100" }
}

run "before_the_first_release_there_is_a_place_for_it_and_no_service" {
  command = plan

  assert {
    condition     = length(google_cloud_run_v2_service.agents) == 0 && length(google_cloud_scheduler_job.sweep) == 0
    error_message = "Something runs without an image."
  }

  assert {
    condition     = output.image_repository == "us-central1-docker.pkg.dev/careflow-staging-000000/careflow"
    error_message = "Images go somewhere else."
  }
}

run "a_release_makes_three_services_of_which_one_is_public" {
  command = apply

  variables {
    release = {
      caller_image               = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/caller@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      pulse_image                = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/pulse@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      elevenlabs_api_key_version = "1"
      twilio_auth_token_version  = "1"
    }
  }

  assert {
    condition     = { for key, service in google_cloud_run_v2_service.agents : key => service.name } == { caller = "caller-agent", pulse = "careflow-agent", twilio = "caller-agent-twilio" }
    error_message = "The services are not the three agents' services."
  }

  assert {
    condition     = [for key, member in google_cloud_run_v2_service_iam_member.invokers : member.name if member.member == "allUsers"] == ["caller-agent-twilio"]
    error_message = "Not exactly Twilio's service is public."
  }

  assert {
    condition     = output.urls.pulse == "https://careflow-agent-123456789012.us-central1.run.app" && google_cloud_scheduler_job.sweep["sweep"].http_target[0].uri == "${output.urls.pulse}/tasks/sweep"
    error_message = "The sweep does not go to Pulse's own address."
  }
}

run "a_setting_that_has_a_variable_is_refused" {
  command = plan

  variables {
    settings = { CAREFLOW_STORE = "sqlite" }
    release = {
      caller_image               = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/caller@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      pulse_image                = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow/pulse@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      elevenlabs_api_key_version = "1"
      twilio_auth_token_version  = "1"
    }
  }

  expect_failures = [google_cloud_run_v2_service.agents]
}
