"""The jobs that a machine starts with: the seed's three, as `scheduler/terraform` makes them in the cloud.

`tests/compat/test_terraform.py` holds the two to the same schedule, payload, retries and deadline.
"""

from __future__ import annotations

import json
from datetime import timedelta

from careflow.core.hospitals import Hospital
from careflow.google_api.http_target import HttpTarget, OidcToken
from careflow.scheduler.model import Job, RetryConfig
from careflow.settings import Settings

MINUTE = 15  # past the hour, as the seed says: not with everybody else on the hour

RETRY = RetryConfig(
    retry_count=3,
    max_retry_duration=timedelta(0),
    min_backoff=timedelta(seconds=60),
    max_backoff=timedelta(seconds=300),
)
ATTEMPT_DEADLINE = timedelta(seconds=600)

_ROUNDS = {
    8: ("morning", "Post-breakfast medication adherence"),
    12: ("noon", "Mid-day symptom check"),
    20: ("evening", "Evening medication and review"),
}


def default_jobs(settings: Settings, pulse_uri: str) -> list[Job]:
    """One job for each round of each hospital, aimed at `pulse_uri`, in the order of the day.

    Where a file names the hospitals, each one's jobs bear its id and name it in their payload, as the `hospitals` of
    scheduler/terraform do. A round at an hour that the seed does not know gives its job the hour's name, `careflow-10-rounds`.
    """
    return [
        _job(settings, pulse_uri, hospital, hour)
        for hospital in settings.served
        for hour in hospital.round_hours
    ]


def _job(settings: Settings, pulse_uri: str, hospital: Hospital, hour: int) -> Job:
    word, purpose = _ROUNDS.get(hour, (f"{hour:02d}", f"Round of {hour:02d}:00"))
    payload = {
        "scheduleHour": hour,
        "timezone": hospital.time_zone,
        "triggerType": "scheduled",
        "source": "cloud-scheduler",
        "environment": settings.environment,
    }
    name = f"careflow-{word}-rounds"
    if settings.hospitals:
        payload["hospitalId"] = hospital.id
        name, purpose = f"{name}-{hospital.id}", f"{hospital.name}: {purpose}"
    return Job(
        name=f"projects/{settings.project}/locations/{settings.location}/jobs/{name}",
        description=purpose,
        schedule=f"{MINUTE} {hour} * * *",
        time_zone=hospital.time_zone,
        http_target=HttpTarget(
            uri=pulse_uri,
            headers={"Content-Type": "application/json"},
            body=json.dumps(payload, separators=(",", ":")).encode(),
            oidc_token=OidcToken(
                service_account_email=settings.scheduler_account,
                audience=settings.pulse_audience or settings.pulse_url,
            ),
        ),
        retry=RETRY,
        attempt_deadline=ATTEMPT_DEADLINE,
    )
