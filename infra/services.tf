# The three services. They run as soon as var.release names images and versions of secrets; before that everything else is made.

data "google_project" "this" {
  project_id = var.project_id
}

locals {
  names = {
    caller = "caller-agent"
    pulse  = "careflow-agent"
    twilio = "caller-agent-twilio"
  }

  # The addresses that Cloud Run gives by name and number: known before a service is there, so that services may be told
  # their own and each other's. Tokens are made for exactly these.
  urls = { for key, name in local.names : key => "https://${name}-${data.google_project.this.number}.${var.region}.run.app" }

  services = {
    pulse = {
      account = "pulse"
      image   = try(var.release.pulse_image, null)
      # Pulse works inside of requests only; what must happen between them is the sweep's.
      cpu_idle    = true
      concurrency = 80
      # Longer than a delivery of a task may take (CAREFLOW_TASK_DEADLINE), and than the scheduler's attempt_deadline.
      timeout = "1860s"
      scaling = var.instances.pulse
      memory  = "512Mi"
      secrets = {}
      private = true
      audio   = false
      env = {
        CAREFLOW_PULSE_PORT        = "8080"
        CAREFLOW_SCHEDULER_ACCOUNT = local.scheduler_account
        CAREFLOW_QUEUE_ACCOUNT     = google_service_account.agents["queue"].email
        CAREFLOW_CALLS_QUEUE       = google_cloud_tasks_queue.queues["calls"].name
        CAREFLOW_ROUNDS_QUEUE      = google_cloud_tasks_queue.queues["rounds"].name
      }
    }

    caller = {
      account = "caller"
      image   = try(var.release.caller_image, null)
      # A connection that breaks must not stop what it began: storing the call's SID, hanging up.
      cpu_idle    = false
      concurrency = 80
      timeout     = "3600s"
      scaling     = var.instances.caller
      memory      = "512Mi"
      secrets     = local.credentials
      private     = true
      audio       = true
      env         = merge(local.caller_env, { CAREFLOW_CALLER_ROUTES = "a2a" })
    }

    twilio = {
      account = "caller"
      image   = try(var.release.caller_image, null)
      # Nor a patient who hangs up: the check-in is stored after the socket has gone.
      cpu_idle = false
      # A socket is a conversation, with 50 packets of sound a second each way.
      concurrency = 20
      timeout     = "3600s"
      scaling     = var.instances.twilio
      memory      = "1Gi"
      secrets     = local.credentials
      private     = false
      audio       = true
      env         = merge(local.caller_env, { CAREFLOW_CALLER_ROUTES = "twilio" })
    }
  }

  common_env = {
    CAREFLOW_CALLER_URL                = local.urls.caller
    CAREFLOW_CLINIC_NAME               = var.clinic.name
    CAREFLOW_CLINIC_PHONE              = var.clinic.phone
    CAREFLOW_DATA_DIR                  = "/tmp/careflow"
    CAREFLOW_ENVIRONMENT               = var.environment
    CAREFLOW_FIRESTORE_DATABASE        = google_firestore_database.ledger.name
    CAREFLOW_HOST                      = "0.0.0.0"
    CAREFLOW_LOCATION                  = var.region
    CAREFLOW_OIDC_ISSUER               = "https://accounts.google.com"
    CAREFLOW_PROJECT                   = var.project_id
    CAREFLOW_PULSE_ACCOUNT             = google_service_account.agents["pulse"].email
    CAREFLOW_PULSE_URL                 = local.urls.pulse
    CAREFLOW_QUEUE                     = "cloud-tasks"
    CAREFLOW_STORE                     = "firestore"
    CAREFLOW_TIME_ZONE                 = var.timezone
    CAREFLOW_TWILIO_ACCOUNT_SID        = var.twilio.account_sid
    CAREFLOW_TWILIO_FROM               = var.twilio.from_number
    CAREFLOW_CALLER_PUBLIC_URL         = local.urls.twilio
    CAREFLOW_ELEVENLABS_VOICES         = join(",", [for language, voice in var.elevenlabs.voices : "${language}=${voice}"])
    CAREFLOW_ELEVENLABS_URL            = var.elevenlabs.url
    CAREFLOW_ELEVENLABS_ZERO_RETENTION = tostring(var.elevenlabs.zero_retention)
  }

  caller_env = {
    CAREFLOW_AUDIO_DIR   = "/audio"
    CAREFLOW_CALLER_PORT = "8080"
  }

  credentials = {
    CAREFLOW_ELEVENLABS_API_KEY = { secret = "elevenlabs-api-key", version = try(var.release.elevenlabs_api_key_version, null) }
    CAREFLOW_TWILIO_AUTH_TOKEN  = { secret = "twilio-auth-token", version = try(var.release.twilio_auth_token_version, null) }
  }

  hospitals_version = try(var.release.hospitals_version, null)
  hospitals_env     = local.hospitals_version == null ? {} : { CAREFLOW_HOSPITALS = "/hospitals/hospitals.toml" }

  # Only where Cloud Run has checked a token may its signature be missing; Twilio's service takes no tokens at all.
  env = {
    for key, service in local.services : key => merge(
      local.common_env,
      service.env,
      local.hospitals_env,
      { CAREFLOW_TRUST_PLATFORM_TOKENS = tostring(service.private) },
    )
  }
}

resource "google_cloud_run_v2_service" "agents" {
  for_each = var.release == null ? {} : local.services

  deletion_protection = var.protected
  # Cloud Run reaches Cloud Run over this address too, without a network of one's own. Who may come in is accounts.tf's.
  ingress  = "INGRESS_TRAFFIC_ALL"
  location = var.region
  name     = local.names[each.key]
  project  = var.project_id

  template {
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    max_instance_request_concurrency = each.value.concurrency
    service_account                  = google_service_account.agents[each.value.account].email
    timeout                          = each.value.timeout

    scaling {
      max_instance_count = each.value.scaling.max
      min_instance_count = each.value.scaling.min
    }

    containers {
      image = each.value.image

      dynamic "env" {
        for_each = merge(var.settings, local.env[each.key])

        content {
          name  = env.key
          value = env.value
        }
      }

      # A pinned version: "latest" would be read at each start, so that instances of one revision could differ.
      dynamic "env" {
        for_each = each.value.secrets

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secrets[env.value.secret].secret_id
              version = env.value.version
            }
          }
        }
      }

      ports {
        container_port = 8080
      }

      resources {
        cpu_idle          = each.value.cpu_idle
        limits            = { cpu = "1", memory = each.value.memory }
        startup_cpu_boost = true
      }

      startup_probe {
        failure_threshold = 60
        period_seconds    = 1
        timeout_seconds   = 1

        http_get {
          path = "/readyz"
        }
      }

      liveness_probe {
        failure_threshold = 3
        period_seconds    = 30
        timeout_seconds   = 5

        http_get {
          path = "/healthz"
        }
      }

      dynamic "volume_mounts" {
        for_each = each.value.audio ? ["audio"] : []

        content {
          mount_path = "/audio"
          name       = "audio"
        }
      }

      dynamic "volume_mounts" {
        for_each = local.hospitals_version == null ? [] : ["hospitals"]

        content {
          mount_path = "/hospitals"
          name       = "hospitals"
        }
      }
    }

    dynamic "volumes" {
      for_each = each.value.audio ? ["audio"] : []

      content {
        name = "audio"

        gcs {
          bucket        = google_storage_bucket.audio.name
          mount_options = ["uid=${var.container_user}", "gid=${var.container_user}"]
        }
      }
    }

    dynamic "volumes" {
      for_each = local.hospitals_version == null ? [] : ["hospitals"]

      content {
        name = "hospitals"

        secret {
          secret = google_secret_manager_secret.secrets["hospitals"].secret_id

          items {
            path    = "hospitals.toml"
            version = local.hospitals_version
          }
        }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = length(setintersection(keys(var.settings), keys(local.env[each.key]))) == 0
      error_message = "settings: some are set by this configuration already, and have variables of their own."
    }

    precondition {
      condition     = each.value.scaling.max * each.value.concurrency >= var.calls.in_flight
      error_message = "instances: with this max, ${local.names[each.key]} cannot hold calls.in_flight calls at once."
    }
  }

  # An account that may not read its secrets or database yet would fail the first start.
  depends_on = [
    google_firestore_index.indexes,
    google_project_iam_member.database_users,
    google_secret_manager_secret_iam_member.readers,
    google_storage_bucket_iam_member.caller_keeps_audio,
  ]
}
