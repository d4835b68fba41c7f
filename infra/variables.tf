variable "backup_days" {
  description = "For how many days each daily backup of the database is kept."
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 98 && floor(var.backup_days) == var.backup_days
    error_message = "backup_days must be a whole number from 1 to 98: Firestore keeps a backup for 14 weeks at most."
  }
}

variable "calls" {
  description = "How fast and how many: per_second attempts begun (Twilio's default for an account is 1), in_flight at once (no more than ElevenLabs' plan allows of realtime sessions)."
  type = object({
    per_second = optional(number, 1)
    in_flight  = optional(number, 10)
  })
  default = {}

  validation {
    condition     = var.calls.per_second > 0 && var.calls.per_second <= 100
    error_message = "calls: per_second must be more than 0 and at most 100, as CAREFLOW_CALLS_PER_SECOND."
  }

  validation {
    condition     = var.calls.in_flight >= 1 && var.calls.in_flight <= 1000 && floor(var.calls.in_flight) == var.calls.in_flight
    error_message = "calls: in_flight must be a whole number from 1 to 1000, as CAREFLOW_CALLS_IN_FLIGHT."
  }
}

variable "clinic" {
  description = "What the scripts say of the hospital: its name, and the number that patients may call back. With a file of hospital profiles, what a profile leaves open."
  type = object({
    name  = string
    phone = string
  })

  validation {
    condition     = can(regex("^[^[:cntrl:]{}]{1,100}$", var.clinic.name))
    error_message = "clinic: name must be 1 to 100 characters without braces and control characters: it is spoken."
  }

  validation {
    condition     = can(regex("^[+]?[0-9 ().-]{3,20}$", var.clinic.phone))
    error_message = "clinic: phone must be a telephone number such as \"+12125550100\"."
  }
}

variable "container_user" {
  description = "Numeric user that the images run as: the owner of the mounted audio cache."
  type        = number
  default     = 65532

  validation {
    condition     = var.container_user >= 1 && var.container_user <= 65535 && floor(var.container_user) == var.container_user
    error_message = "container_user must be a whole number from 1 to 65535: not root."
  }
}

variable "elevenlabs" {
  description = "Voices by language (en is needed), the address (or a residency host), and whether zero retention is asked for (Enterprise); with real patients it should be. The key is a secret."
  type = object({
    voices         = map(string)
    url            = optional(string, "https://api.elevenlabs.io")
    zero_retention = optional(bool, false)
  })

  validation {
    condition     = contains(keys(var.elevenlabs.voices), "en") && alltrue([for language, voice in var.elevenlabs.voices : can(regex("^[a-z]{2}$", language)) && can(regex("^[A-Za-z0-9]{1,64}$", voice))])
    error_message = "elevenlabs: voices are language => voice id, letters and digits, and there must be one for en."
  }

  validation {
    condition     = can(regex("^https://[a-z0-9.-]+$", var.elevenlabs.url))
    error_message = "elevenlabs: url must be https:// and a host name, without a path or slash at the end."
  }
}

variable "environment" {
  description = "Which environment this is. Pulse refuses a trigger for another one."
  type        = string

  validation {
    condition     = contains(["staging", "prod"], var.environment)
    error_message = "environment must be staging or prod."
  }
}

variable "firestore_database" {
  description = "Id of the Firestore database. The free tier is for one database of a project."
  type        = string
  default     = "(default)"

  validation {
    condition     = can(regex("^([(]default[)]|[a-z][a-z0-9-]{2,61}[a-z0-9])$", var.firestore_database))
    error_message = "firestore_database must be \"(default)\", or 4 to 63 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "firestore_location" {
  description = "Where the database is, for ever; null is the region. \"nam5\" is several regions of the United States, at about twice the price."
  type        = string
  default     = null

  validation {
    condition     = var.firestore_location == null || can(regex("^([a-z]+-[a-z]+[0-9]{1,2}|nam[0-9]+|eur[0-9]+)$", var.firestore_location))
    error_message = "firestore_location must be a region such as \"us-central1\", or a multi-region such as \"nam5\"."
  }
}

variable "instances" {
  description = "Instances of each service: min are kept warm (and paid for), max bounds cost and load."
  type = object({
    caller = optional(object({ min = optional(number, 0), max = optional(number, 4) }), {})
    pulse  = optional(object({ min = optional(number, 0), max = optional(number, 4) }), {})
    twilio = optional(object({ min = optional(number, 0), max = optional(number, 10) }), {})
  })
  default = {}

  validation {
    condition     = alltrue([for scaling in values(var.instances) : scaling.min >= 0 && scaling.min <= scaling.max && scaling.max >= 1 && scaling.max <= 100 && floor(scaling.min) == scaling.min && floor(scaling.max) == scaling.max])
    error_message = "instances: min and max must be whole numbers, 0 <= min <= max and 1 <= max <= 100."
  }
}

variable "operators" {
  description = "People and groups that may read and write the database, to import rosters and export: \"user:...\" or \"group:...\"."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.operators : can(regex("^(user|group):[^[:space:]@]+@[^[:space:]@]+$", member))])
    error_message = "operators must be \"user:\" or \"group:\" and an address each; nobody else reads patients' data."
  }
}

variable "project_id" {
  description = "Google Cloud project of this environment. Staging and production have one each."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "project_name" {
  description = "First part of the names of accounts, queues, secrets and the bucket; the same as in scheduler/terraform."
  type        = string
  default     = "careflow"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", var.project_name))
    error_message = "project_name must be 1 to 20 lower-case letters, digits and hyphens, a letter first and no hyphen last, as in scheduler/terraform."
  }
}

variable "protected" {
  description = "Whether services, secrets and the database refuse to be destroyed. Turn it off, apply, and only then destroy."
  type        = bool
  default     = true
}

variable "region" {
  description = "Region of everything; the same as in scheduler/terraform."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.region))
    error_message = "region must be a Google Cloud region such as \"us-central1\"."
  }
}

variable "release" {
  description = "What runs: the two images by digest, and the versions of the secrets. Null makes everything but the services, so that images and secrets have a place to go to. hospitals_version is left out with one hospital."
  type = object({
    caller_image               = string
    pulse_image                = string
    elevenlabs_api_key_version = string
    twilio_auth_token_version  = string
    hospitals_version          = optional(string)
  })
  default = null

  validation {
    condition     = var.release == null || alltrue([for image in [try(var.release.caller_image, ""), try(var.release.pulse_image, "")] : can(regex("^[a-z0-9.-]+(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64}$", image))])
    error_message = "release: images are given by digest, such as \"us-central1-docker.pkg.dev/PROJECT/careflow/pulse@sha256:...\": a tag can be another image tomorrow."
  }

  validation {
    condition     = var.release == null || alltrue([for version in [try(var.release.elevenlabs_api_key_version, ""), try(var.release.twilio_auth_token_version, ""), try(coalesce(var.release.hospitals_version, "1"), "")] : can(regex("^[1-9][0-9]*$", version))])
    error_message = "release: versions of secrets are numbers such as \"1\": \"latest\" could differ between instances."
  }
}

variable "settings" {
  description = "Further settings of all three services (docs/settings.md), such as { CAREFLOW_RING_SECONDS = \"30\" }. What has a variable here, and secrets, are refused."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^CAREFLOW_[A-Z_]+$", name)) && !can(regex("(_TOKEN|_API_KEY)$", name))])
    error_message = "settings: names are CAREFLOW_..., and secrets do not belong here: Terraform's state would hold them."
  }
}

variable "timezone" {
  description = "The hospital's time zone; the same as in scheduler/terraform."
  type        = string
  default     = "America/New_York"

  validation {
    condition     = can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2})$", var.timezone))
    error_message = "timezone must be an IANA name such as \"America/New_York\", or \"UTC\"."
  }
}

variable "twilio" {
  description = "The Twilio account and the number that calls come from. Each environment has its own, or at least its own number. The auth token is a secret."
  type = object({
    account_sid = string
    from_number = string
  })

  validation {
    condition     = can(regex("^AC[0-9a-f]{32}$", var.twilio.account_sid))
    error_message = "twilio: account_sid must be AC and 32 hexadecimal digits."
  }

  validation {
    condition     = can(regex("^[+][1-9][0-9]{6,14}$", var.twilio.from_number))
    error_message = "twilio: from_number must be in E.164, such as \"+12125550100\"."
  }
}
