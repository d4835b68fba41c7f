# Who there is, and who may do what: every right of the system is on this page, and tests/compat/test_infra.py holds the table.
#
#   careflow-scheduler   made by scheduler/terraform, with its right to invoke careflow-agent
#   careflow-queue       invoke careflow-agent: Cloud Tasks' deliveries and the sweep
#   careflow-pulse       invoke caller-agent; enqueue on the two queues, in the queue account's name; use the database; read hospitals
#   careflow-caller      use the database; read the two credentials and hospitals; keep the audio cache
#   anybody              invoke caller-agent-twilio: Twilio has no Google account, the Caller checks its signature
#   var.operators        use the database: roster imports, exports

locals {
  accounts = {
    caller = "Telephones patients for the CareFlow Caller Agent."
    pulse  = "Plans rounds and holds calls for the CareFlow Pulse Agent."
    queue  = "In whose name Cloud Tasks and the sweep call the CareFlow Pulse Agent."
  }

  # Made by scheduler/terraform; Pulse only has to know its name.
  scheduler_account = "${var.project_name}-scheduler@${var.project_id}.iam.gserviceaccount.com"

  database_users = merge(
    { for name in ["caller", "pulse"] : name => google_service_account.agents[name].member },
    { for member in var.operators : member => member },
  )

  # service => who may invoke it
  invokers = {
    caller = google_service_account.agents["pulse"].member
    pulse  = google_service_account.agents["queue"].member
    # An organisation with domain-restricted sharing has to allow this one binding.
    twilio = "allUsers"
  }

  # secret => the accounts that may read it
  readers = {
    elevenlabs-api-key = ["caller"]
    hospitals          = ["caller", "pulse"]
    twilio-auth-token  = ["caller"]
  }

  readings = merge([
    for secret, accounts in local.readers : {
      for account in accounts : "${secret}/${account}" => { secret = secret, account = account }
    }
  ]...)
}

resource "google_service_account" "agents" {
  for_each = local.accounts

  account_id   = "${var.project_name}-${each.key}"
  description  = each.value
  display_name = "CareFlow ${each.key} (${var.environment})"
  project      = var.project_id

  depends_on = [google_project_service.apis]
}

# On one service each: a binding on the project would open every service in it.
resource "google_cloud_run_v2_service_iam_member" "invokers" {
  for_each = var.release == null ? {} : local.invokers

  location = var.region
  member   = each.value
  name     = google_cloud_run_v2_service.agents[each.key].name
  project  = var.project_id
  role     = "roles/run.invoker"
}

resource "google_cloud_tasks_queue_iam_member" "pulse_enqueues" {
  for_each = google_cloud_tasks_queue.queues

  location = var.region
  member   = google_service_account.agents["pulse"].member
  name     = each.value.name
  project  = var.project_id
  role     = "roles/cloudtasks.enqueuer"
}

# A task names the account in whose name it is delivered; naming one takes the right to act as it.
resource "google_service_account_iam_member" "pulse_acts_as_queue" {
  member             = google_service_account.agents["pulse"].member
  role               = "roles/iam.serviceAccountUser"
  service_account_id = google_service_account.agents["queue"].name
}

# On the project, since a database has no policy of its own; the condition leaves every other database out.
resource "google_project_iam_member" "database_users" {
  for_each = local.database_users

  member  = each.value
  project = var.project_id
  role    = "roles/datastore.user"

  condition {
    description = "The database of CareFlow and no other"
    expression  = "resource.name == \"projects/${var.project_id}/databases/${var.firestore_database}\""
    title       = "careflow_database"
  }
}

resource "google_secret_manager_secret_iam_member" "readers" {
  for_each = local.readings

  member    = google_service_account.agents[each.value.account].member
  project   = var.project_id
  role      = "roles/secretmanager.secretAccessor"
  secret_id = google_secret_manager_secret.secrets[each.value.secret].secret_id
}

resource "google_storage_bucket_iam_member" "caller_keeps_audio" {
  bucket = google_storage_bucket.audio.name
  member = google_service_account.agents["caller"].member
  role   = "roles/storage.objectUser"
}
