"""Who may invoke whom on Cloud Run, and whether the accounts exist. In the cloud only, with an access token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from careflow.doctor.findings import Finding, not_seen, well, wrong
from careflow.doctor.set_up import GoogleRefused, SetUp

RUN = "https://run.googleapis.com/v2"
IAM = "https://iam.googleapis.com/v1"
_INVOKER = "roles/run.invoker"


def wanted_invokers(set_up: SetUp) -> Mapping[str, Sequence[str]]:
    """Service -> the members that must be able to invoke it (docs/google-cloud.md, who may do what)."""
    given = set_up.settings
    return {
        "careflow-agent": [f"serviceAccount:{one}" for one in (given.scheduler_account, given.queue_account)],
        "caller-agent": [f"serviceAccount:{given.pulse_account}"],
        "caller-agent-twilio": ["allUsers"],
    }


async def rights(set_up: SetUp) -> AsyncIterator[Finding]:
    """The bindings of the seed's `get-iam-policy`, read and judged."""
    given = set_up.settings
    if not set_up.cloud:
        yield not_seen("IAM", "this set-up is not on Google Cloud: Pulse checks the accounts itself")
        return
    if not set_up.access_token:
        by_hand = [
            f"gcloud run services get-iam-policy {service} --region={given.location} --project={given.project}"
            for service in wanted_invokers(set_up)
        ]
        accounts = [
            f"gcloud iam service-accounts describe {one}"
            for one in (given.scheduler_account, given.queue_account)
        ]
        yield not_seen(
            "IAM", "needs an access token: --token $(gcloud auth print-access-token)", *by_hand, *accounts
        )
        return
    parent = f"{RUN}/projects/{given.project}/locations/{given.location}/services"
    for service, members in wanted_invokers(set_up).items():
        try:
            policy = await set_up.google("GET", f"{parent}/{service}:getIamPolicy")
        except GoogleRefused as error:
            yield _unread(service, error, set_up)
            continue
        for one in judged_policy(service, policy, members, set_up):
            yield one
    for account in (given.scheduler_account, given.queue_account, given.pulse_account):
        try:
            document = await set_up.google("GET", f"{IAM}/projects/-/serviceAccounts/{account}")
        except GoogleRefused as error:
            if error.status == 404:
                yield wrong(
                    account,
                    "there is no such service account",
                    "Nobody can speak in its name: jobs and tasks are refused before they are sent.",
                    *set_up.remedies.invoker("careflow-agent", f"serviceAccount:{account}")[:1],
                )
            else:
                yield not_seen(
                    account, f"may not be read ({error})", f"gcloud iam service-accounts describe {account}"
                )
            continue
        if document.get("disabled"):
            yield wrong(
                account,
                "is disabled",
                "Tokens in its name are refused.",
                f"gcloud iam service-accounts enable {account} --project={given.project}",
            )
        else:
            yield well(account, "exists")


def judged_policy(
    service: str, policy: Mapping[str, Any], members: Sequence[str], set_up: SetUp
) -> Sequence[Finding]:
    """Whether each of the members has the right to invoke, and nobody has who should not."""
    bound = {
        member
        for binding in policy.get("bindings", [])
        if binding.get("role") == _INVOKER
        for member in binding.get("members", [])
    }
    found = [
        wrong(
            service,
            f"{member} may not invoke it",
            "403 Forbidden before the service sees the request (PERMISSION_DENIED in the job's log).",
            *set_up.remedies.invoker(service, member),
        )
        for member in members
        if member not in bound
    ]
    for stranger in sorted(bound & {"allUsers", "allAuthenticatedUsers"} - set(members)):
        found.append(  # noqa: PERF401 - each is a sentence
            wrong(
                service,
                f"{stranger} may invoke it",
                "A private service is open. With CAREFLOW_TRUST_PLATFORM_TOKENS nothing else guards it.",
                f"gcloud run services remove-iam-policy-binding {service} --region={set_up.settings.location}"
                f" --project={set_up.settings.project} --member={stranger} --role={_INVOKER}",
            )
        )
    return found or [well(service, f"may be invoked by {', '.join(members)}")]


def _unread(service: str, error: GoogleRefused, set_up: SetUp) -> Finding:
    given = set_up.settings
    if error.status == 404:
        return wrong(
            service,
            "there is no such Cloud Run service here",
            "It was not deployed, or CAREFLOW_PROJECT and CAREFLOW_LOCATION name another place.",
            f"gcloud run services list --project={given.project}",
            set_up.remedies.infra(),
        )
    return not_seen(
        service,
        f"its policy may not be read ({error})",
        f"gcloud run services get-iam-policy {service} --region={given.location} --project={given.project}",
    )
