"""A work-alike of Google Cloud Scheduler's v1 API for any machine: schedules, retries, delivery, REST and gRPC."""
