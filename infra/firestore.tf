# The database, its indexes (firestore/firestore.indexes.json, the file that the store's tests hold), its rules and its backups.

locals {
  declared = jsondecode(file("${path.module}/firestore/firestore.indexes.json"))

  # Each under a name that says what it is, so that the order in the file is of no meaning.
  indexes = {
    for index in local.declared.indexes : join("/", [
      index.collectionGroup,
      lower(index.queryScope),
      join(",", [for field in index.fields : "${field.fieldPath}:${lower(try(field.order, field.arrayConfig))}"]),
    ]) => index
  }

  overrides = { for field in local.declared.fieldOverrides : "${field.collectionGroup}/${field.fieldPath}" => field }

  rules_release = var.firestore_database == "(default)" ? "cloud.firestore" : "cloud.firestore/${var.firestore_database}"
}

resource "google_firestore_database" "ledger" {
  app_engine_integration_mode       = "DISABLED"
  delete_protection_state           = var.protected ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
  deletion_policy                   = var.protected ? "ABANDON" : "DELETE"
  location_id                       = coalesce(var.firestore_location, var.region)
  name                              = var.firestore_database
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  project                           = var.project_id
  type                              = "FIRESTORE_NATIVE"

  depends_on = [google_project_service.apis]
}

resource "google_firestore_index" "indexes" {
  for_each = local.indexes

  collection  = each.value.collectionGroup
  database    = google_firestore_database.ledger.name
  project     = var.project_id
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields

    content {
      array_config = try(fields.value.arrayConfig, null)
      field_path   = fields.value.fieldPath
      order        = try(fields.value.order, null)
    }
  }
}

# Single fields that are indexed otherwise than Firestore does by itself, or that end a document's life.
resource "google_firestore_field" "overrides" {
  for_each = local.overrides

  collection = each.value.collectionGroup
  database   = google_firestore_database.ledger.name
  field      = each.value.fieldPath
  project    = var.project_id

  # An empty block is "no index at all".
  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes

      content {
        array_config = try(indexes.value.arrayConfig, null)
        order        = try(indexes.value.order, null)
        query_scope  = try(indexes.value.queryScope, null)
      }
    }
  }

  dynamic "ttl_config" {
    for_each = try(each.value.ttl, false) ? [true] : []

    content {}
  }
}

# Rules bind browsers and phones, which have no business here; servers are bound by IAM (accounts.tf).
resource "google_firebaserules_ruleset" "closed" {
  project = var.project_id

  source {
    files {
      content = file("${path.module}/firestore/firestore.rules")
      name    = "firestore.rules"
    }
  }

  depends_on = [google_firestore_database.ledger]

  # A ruleset cannot go while a release names it.
  lifecycle {
    create_before_destroy = true
  }
}

resource "google_firebaserules_release" "closed" {
  name         = local.rules_release
  project      = var.project_id
  ruleset_name = "projects/${var.project_id}/rulesets/${google_firebaserules_ruleset.closed.name}"
}

# Beside point-in-time recovery, which reaches seven days back within the same database.
resource "google_firestore_backup_schedule" "daily" {
  database  = google_firestore_database.ledger.name
  project   = var.project_id
  retention = "${var.backup_days * 86400}s"

  daily_recurrence {}
}
