variable "attempt_deadline" {
  description = "How long Pulse may take to answer one trigger. Pulse answers when the round is planned, in seconds; the calls themselves are not waited for. Pulse's Cloud Run timeout must be at least as long."
  type        = string
  default     = "600s"

  validation {
    condition     = can(regex("^[0-9]{1,4}s$", var.attempt_deadline)) && try(tonumber(trimsuffix(var.attempt_deadline, "s")), 0) >= 15 && try(tonumber(trimsuffix(var.attempt_deadline, "s")), 0) <= 1800
    error_message = "attempt_deadline must be whole seconds such as \"600s\", from 15s to 1800s: Cloud Scheduler's range for HTTP targets."
  }
}

variable "environments" {
  description = "The environments that are there already. With one left out nothing of it is made, and what was made of it goes."
  type        = set(string)
  default     = ["prod", "staging"]

  validation {
    condition     = length(var.environments) > 0 && length(setsubtract(var.environments, ["prod", "staging"])) == 0
    error_message = "environments must be one or both of prod and staging."
  }
}

variable "hospitals" {
  description = "Hospitals with jobs of their own, beside the default ones: key => what differs. The key is part of the job names, id is the hospitalId Pulse is told. environments and rounds choose a part of them; round_times and timezone replace those of the default jobs."
  type = map(object({
    id           = string
    name         = string
    environments = optional(set(string), ["prod", "staging"])
    rounds       = optional(set(string), ["morning", "noon", "evening"])
    round_times  = optional(map(string), {})
    timezone     = optional(string)
  }))
  default = {}

  validation {
    condition     = alltrue([for key in keys(var.hospitals) : can(regex("^[a-z][a-z0-9-]{0,38}[a-z0-9]$", key))])
    error_message = "hospitals: a key must be 2 to 40 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : can(regex("^[a-z0-9][a-z0-9-]{0,39}$", hospital.id))])
    error_message = "hospitals: an id must be 1 to 40 lower-case letters, digits and hyphens, a letter or digit first, as Pulse accepts it."
  }

  validation {
    condition     = length(distinct([for hospital in values(var.hospitals) : hospital.id])) == length(var.hospitals)
    error_message = "hospitals: two of them have the same id."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : can(regex("^[^[:cntrl:]]{1,100}$", hospital.name))])
    error_message = "hospitals: a name must be 1 to 100 characters without control characters."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : length(hospital.environments) > 0 && length(setsubtract(hospital.environments, ["prod", "staging"])) == 0])
    error_message = "hospitals: environments must be one or both of prod and staging."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : length(hospital.rounds) > 0 && length(setsubtract(hospital.rounds, ["morning", "noon", "evening"])) == 0])
    error_message = "hospitals: rounds must be some of morning, noon and evening."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : length(setsubtract(keys(hospital.round_times), hospital.rounds)) == 0])
    error_message = "hospitals: round_times names a round that the hospital does not have; accepted are those in its rounds."
  }

  # The bounds are those of variable round_times.
  validation {
    condition = alltrue(flatten([for hospital in values(var.hospitals) : [for round, at in hospital.round_times :
      can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]$", at)) &&
      try(tonumber(replace(at, ":", "")), 9999) >= lookup({ morning = 800, noon = 1200, evening = 2000 }, round, 0) &&
      try(tonumber(replace(at, ":", "")), 9999) < lookup({ morning = 1200, noon = 2000, evening = 2100 }, round, 2400)
    ]]))
    error_message = "hospitals: round_times are HH:MM on a 24-hour clock, morning from 08:00, noon from 12:00, evening from 20:00 to 20:59: a job must fire within its own round."
  }

  validation {
    condition     = alltrue([for hospital in values(var.hospitals) : hospital.timezone == null || can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2})$", hospital.timezone))])
    error_message = "hospitals: a timezone must be an IANA name such as \"America/Chicago\", or \"UTC\"."
  }
}

variable "prod_project_id" {
  description = "Google Cloud project of production."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.prod_project_id))
    error_message = "prod_project_id must be a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "project_name" {
  description = "First part of every job name and of the service account's."
  type        = string
  default     = "careflow"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", var.project_name))
    error_message = "project_name must be 1 to 20 lower-case letters, digits and hyphens, a letter first and no hyphen last: with \"-scheduler\" it must fit a service account id of 30 characters."
  }
}

variable "pulse_agent_service_name" {
  description = "Cloud Run service of the Pulse Agent: the only one that the scheduler's account may invoke."
  type        = string
  default     = "careflow-agent"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,47}[a-z0-9])?$", var.pulse_agent_service_name))
    error_message = "pulse_agent_service_name must be a Cloud Run service name: 1 to 49 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "pulse_agent_urls" {
  description = "URL of the Pulse Agent in each environment, as Cloud Run prints it: target and audience of the jobs. No path and no slash at the end, since Cloud Run compares the audience as it stands."
  type = object({
    prod    = string
    staging = string
  })

  validation {
    condition     = alltrue([for url in values(var.pulse_agent_urls) : can(regex("^https://[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", url))])
    error_message = "pulse_agent_urls must be https:// and a host name in lower case, without path, port or slash at the end, such as \"https://careflow-agent-abc123-uc.a.run.app\"."
  }

  validation {
    condition     = var.pulse_agent_urls.prod != var.pulse_agent_urls.staging
    error_message = "pulse_agent_urls: prod and staging are the same URL; each environment has a Pulse Agent of its own."
  }
}

variable "region" {
  description = "Region of the jobs and of the Pulse Agent's Cloud Run service."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.region))
    error_message = "region must be a Google Cloud region such as \"us-central1\"."
  }
}

variable "retry" {
  description = "What happens after a failed trigger: up to count more deliveries, min_backoff after the first failure, twice as long after each further one, max_backoff at most. A max_duration of 0s is no limit in time. A repeated trigger is harmless: Pulse plans a round once."
  type = object({
    count        = optional(number, 3)
    max_duration = optional(string, "0s")
    min_backoff  = optional(string, "60s")
    max_backoff  = optional(string, "300s")
  })
  default = {}

  validation {
    condition     = var.retry.count >= 0 && var.retry.count <= 5 && floor(var.retry.count) == var.retry.count
    error_message = "retry: count must be a whole number from 0 to 5."
  }

  validation {
    condition     = alltrue([for duration in [var.retry.max_duration, var.retry.min_backoff, var.retry.max_backoff] : can(regex("^[0-9]{1,6}s$", duration))])
    error_message = "retry: durations must be whole seconds such as \"60s\"."
  }

  validation {
    condition     = try(tonumber(trimsuffix(var.retry.min_backoff, "s")) <= tonumber(trimsuffix(var.retry.max_backoff, "s")), true)
    error_message = "retry: min_backoff must not be longer than max_backoff."
  }
}

variable "round_times" {
  description = "When each round's job fires, HH:MM in the time zone. 15 minutes past the hour avoids the crowd on the hour. The round keeps its scheduleHour (8, 12, 20) whatever the minute."
  type = object({
    morning = optional(string, "08:15")
    noon    = optional(string, "12:15")
    evening = optional(string, "20:15")
  })
  default = {}

  # A job that fires outside its round's window would find another day's round, or nobody who may still be phoned.
  validation {
    condition = alltrue([for round, at in var.round_times :
      can(regex("^([01][0-9]|2[0-3]):[0-5][0-9]$", at)) &&
      try(tonumber(replace(at, ":", "")), 9999) >= { morning = 800, noon = 1200, evening = 2000 }[round] &&
      try(tonumber(replace(at, ":", "")), 9999) < { morning = 1200, noon = 2000, evening = 2100 }[round]
    ])
    error_message = "round_times are HH:MM on a 24-hour clock, morning from 08:00, noon from 12:00, evening from 20:00 to 20:59: a job must fire within its own round."
  }
}

variable "staging_project_id" {
  description = "Google Cloud project of staging."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.staging_project_id))
    error_message = "staging_project_id must be a project id: 6 to 30 lower-case letters, digits and hyphens, a letter first and no hyphen last."
  }
}

variable "timezone" {
  description = "Time zone of the schedules, and of the rounds that they open. Daylight saving is followed: 08:15 stays 08:15."
  type        = string
  default     = "America/New_York"

  validation {
    condition     = can(regex("^(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2})$", var.timezone))
    error_message = "timezone must be an IANA name such as \"America/New_York\", or \"UTC\"."
  }
}
