variable "agent_service_names" {
  description = "Cloud Run services: pulse is Pulse's; caller the Caller's, and the first part of the name of its public one."
  type = object({
    caller = optional(string, "caller-agent")
    pulse  = optional(string, "careflow-agent")
  })
  default = {}

  validation {
    condition     = alltrue([for name in values(var.agent_service_names) : can(regex("^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$", name))])
    error_message = "agent_service_names must be Cloud Run service names: 1 to 49 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "channels" {
  description = "Notification channels that exist already, such as a pager or a webhook, by full name: all are told of everything, critical of what cannot wait. Made by hand, since their keys would stand in the state."
  type = object({
    all      = optional(list(string), [])
    critical = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = alltrue([for name in concat(var.channels.all, var.channels.critical) : can(regex("^projects/[a-z][a-z0-9-]{4,28}[a-z0-9]/notificationChannels/[0-9]+$", name))])
    error_message = "channels must be full names such as \"projects/careflow-prod-000000/notificationChannels/1234567890\"."
  }
}

variable "emails" {
  description = "Who is told of everything, by e-mail. At least one: an alert that reaches nobody is none."
  type        = set(string)

  validation {
    condition     = length(var.emails) > 0 && alltrue([for address in var.emails : can(regex("^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:]]+$", address))])
    error_message = "emails must be one or more addresses such as \"rounds@hospital.test\"."
  }
}

variable "environment" {
  description = "Which environment this is; it stands in front of every alert."
  type        = string

  validation {
    condition     = contains(["staging", "prod"], var.environment)
    error_message = "environment must be staging or prod."
  }
}

variable "project_id" {
  description = "Google Cloud project of this environment."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "project_name" {
  description = "First part of the jobs' names; the same as in scheduler/terraform."
  type        = string
  default     = "careflow"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", var.project_name))
    error_message = "project_name must be 1 to 20 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "runbook_url" {
  description = "Where docs/runbook.md can be read, for the link in every alert; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.runbook_url == null || can(regex("^https://[^[:space:]#]+$", var.runbook_url))
    error_message = "runbook_url must begin with https:// and have no # in it: the section is added."
  }
}

variable "thresholds" {
  description = "From when on somebody is told. failures_in_a_row: deliveries of one job without a success in between, in 45 minutes. retries and retry_share: failed deliveries in a day, as a number and as a part of all, both. trigger_seconds: p95 of an hour. unreached_share of unreached_calls or more in a round's hours. telephone_errors, speech_errors: in 15 minutes. silence_minutes: without a sweep."
  type = object({
    failures_in_a_row = optional(number, 3)
    retries           = optional(number, 2)
    retry_share       = optional(number, 0.1)
    silence_minutes   = optional(number, 30)
    speech_errors     = optional(number, 5)
    telephone_errors  = optional(number, 5)
    trigger_seconds   = optional(number, 30)
    unreached_calls   = optional(number, 10)
    unreached_share   = optional(number, 0.5)
  })
  default = {}

  # A job is tried four times for one slot.
  validation {
    condition     = var.thresholds.failures_in_a_row >= 1 && var.thresholds.failures_in_a_row <= 4 && floor(var.thresholds.failures_in_a_row) == var.thresholds.failures_in_a_row
    error_message = "thresholds: failures_in_a_row must be a whole number from 1 to 4: a slot has four deliveries at most."
  }

  validation {
    condition     = var.thresholds.retries >= 1 && floor(var.thresholds.retries) == var.thresholds.retries
    error_message = "thresholds: retries must be a whole number, at least 1."
  }

  validation {
    condition     = var.thresholds.retry_share >= 0 && var.thresholds.retry_share < 1
    error_message = "thresholds: retry_share must be from 0 to below 1, such as 0.1."
  }

  # A sweep comes every five minutes, and one may be missed.
  validation {
    condition     = var.thresholds.silence_minutes >= 15 && var.thresholds.silence_minutes <= 1410 && floor(var.thresholds.silence_minutes) == var.thresholds.silence_minutes
    error_message = "thresholds: silence_minutes must be a whole number from 15 to 1410 (23 h 30 min)."
  }

  validation {
    condition     = var.thresholds.speech_errors >= 1 && floor(var.thresholds.speech_errors) == var.thresholds.speech_errors
    error_message = "thresholds: speech_errors must be a whole number, at least 1."
  }

  validation {
    condition     = var.thresholds.telephone_errors >= 1 && floor(var.thresholds.telephone_errors) == var.thresholds.telephone_errors
    error_message = "thresholds: telephone_errors must be a whole number, at least 1."
  }

  # The metric's buckets end there; Cloud Scheduler gives up at 1800 s at the latest.
  validation {
    condition     = var.thresholds.trigger_seconds > 0 && var.thresholds.trigger_seconds <= 1800
    error_message = "thresholds: trigger_seconds must be more than 0 and at most 1800."
  }

  validation {
    condition     = var.thresholds.unreached_calls >= 1 && floor(var.thresholds.unreached_calls) == var.thresholds.unreached_calls
    error_message = "thresholds: unreached_calls must be a whole number, at least 1."
  }

  validation {
    condition     = var.thresholds.unreached_share > 0 && var.thresholds.unreached_share < 1
    error_message = "thresholds: unreached_share must be between 0 and 1, such as 0.5."
  }
}
