"""What the end of a job's attempt means: google.rpc codes as Cloud Scheduler keeps them (docs/runbook.md)."""

from __future__ import annotations

from collections.abc import Mapping

from careflow.google_api.codes import Code

MEANING: Mapping[Code, str] = {
    Code.UNAUTHENTICATED: (
        "401: no token, or one for another audience than Pulse's. The audience must be Pulse's, to the letter."
    ),
    Code.PERMISSION_DENIED: (
        "403: the job's service account may not call Pulse. It lacks roles/run.invoker on careflow-agent, or it is not"
        " Pulse's CAREFLOW_SCHEDULER_ACCOUNT."
    ),
    Code.INVALID_ARGUMENT: (
        "400: Pulse refuses the payload; most often it is the Pulse of another environment, which is the dangerous mistake."
    ),
    Code.FAILED_PRECONDITION: (
        "A refusal of another kind (4xx): 415 is a missing Content-Type, 405 a wrong method, 422 another service."
    ),
    Code.NOT_FOUND: "404: nothing is at the job's address: a wrong agent URL, or a path behind it.",
    Code.DEADLINE_EXCEEDED: (
        "Pulse had not planned the round within attempt_deadline. It plans in seconds and phones afterwards, so its store is"
        " slow or down; or the deadline is very short. Pulse goes on with what it had begun, and the retry completes the round."
    ),
    Code.UNAVAILABLE: "Pulse was not there, starting, or without its store (503). The retries are for this.",
    Code.INTERNAL: "500: a fault inside whatever answered; its log says more.",
    Code.RESOURCE_EXHAUSTED: "429: more requests than the service takes; on Cloud Run, too few instances.",
}
UNKNOWN = "The job's address answered with an error."


def code_of_job(status: object) -> Code | None:
    """The code in a Job's `status`; None when it has not run."""
    if not isinstance(status, dict):
        return None
    try:
        return Code(int(status.get("code", 0)))
    except ValueError:
        return Code.UNKNOWN
