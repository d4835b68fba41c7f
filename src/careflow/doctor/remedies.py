"""Fixes as lines to copy: `careflow` where the set-up is this machine's, gcloud and Terraform where it is Google's."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TERRAFORM = "cd scheduler/terraform && terraform apply -var-file=vars/env.tfvars"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """`options` are the words that name this set-up in a `careflow jobs` command, `data` those in any other."""

    cloud: bool
    project: str
    location: str
    environment: str
    options: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    # --- the scheduler's jobs

    def resume(self, job_id: str) -> Sequence[str]:
        """Have a paused job fire again, and now once, for what it missed."""
        return (self._job("resume", job_id), self._job("run", job_id))

    def run(self, job_id: str) -> Sequence[str]:
        """Fire it now."""
        return (self._job("run", job_id),)

    def describe(self, job_id: str) -> Sequence[str]:
        """Show it whole."""
        return (self._job("describe", job_id),)

    def history(self, job_id: str) -> str:
        """Show what it did."""
        if not self.cloud:
            return _line("careflow", "jobs", "history", job_id, *self.options)
        return (
            f'gcloud logging read \'resource.type="cloud_scheduler_job" AND resource.labels.job_id="{job_id}"\''
            f" --project={self.project} --limit=10"
        )

    def change(self, job_id: str, terraform: str, **flags: str) -> Sequence[str]:
        """Change what `careflow jobs update` can; `terraform` says which value that is in vars/env.tfvars."""
        if self.cloud:
            return (f"# in scheduler/terraform/vars/env.tfvars: {terraform}", TERRAFORM)
        words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", value)]
        return (_line("careflow", "jobs", "update", job_id, *words, *self.options),)

    def remake(self, job: Mapping[str, Any], terraform: str, **changed: str) -> Sequence[str]:
        """The job again with another token or address: those of a job that is there are not changed one by one."""
        if self.cloud:
            return (f"# {terraform}", TERRAFORM)
        target, name = job.get("httpTarget", {}), str(job["name"]).rpartition("/")[2]
        token = target.get("oidcToken", {})
        body = base64.b64decode(target.get("body", "")).decode(errors="replace")
        words = {
            "schedule": str(job.get("schedule", "")),
            "time-zone": str(job.get("timeZone", "UTC")),
            "uri": str(target.get("uri", "")),
            "account": str(token.get("serviceAccountEmail", "")),
            "audience": str(token.get("audience", "")),
            "body": body,
            "retries": str(job.get("retryConfig", {}).get("retryCount", 3)),
            "deadline": str(job.get("attemptDeadline", "600s")).removesuffix("s").partition(".")[0],
        } | changed
        given = [word for key, value in words.items() if value for word in (f"--{key}", value)]
        return (
            _line("careflow", "jobs", "delete", name, *self.options),
            _line("careflow", "jobs", "create", name, *given, *self.options),
        )

    def create(self, job_id: str, **words: str) -> Sequence[str]:
        """Make a job that is missing."""
        if self.cloud:
            return (f"# {job_id} is made by scheduler/terraform (a deleted one comes back)", TERRAFORM)
        given = [word for key, value in words.items() for word in (f"--{key.replace('_', '-')}", value)]
        return (_line("careflow", "jobs", "create", job_id, *given, *self.options),)

    def _job(self, verb: str, job_id: str) -> str:
        if self.cloud:
            return _line(
                *("gcloud", "scheduler", "jobs", verb, job_id),
                *(f"--project={self.project}", f"--location={self.location}"),
            )
        return _line("careflow", "jobs", verb, job_id, *self.options)

    # --- the services

    def start(self, service: str) -> Sequence[str]:
        """Have a service run."""
        if self.cloud:
            return (*self.logs(service), f"make -C infra apply ENVIRONMENT={self.environment}")
        return (_line("careflow", "up", *self.data),)

    def logs(self, service: str) -> Sequence[str]:
        """What a service says."""
        if self.cloud:
            return (
                f"gcloud run services logs read {service} --project={self.project} --region={self.location} --limit=50",
            )
        return (
            "# the log is on the standard error of careflow up; on a terminal, log.jsonl in the data directory",
        )

    def invoker(self, service: str, member: str) -> Sequence[str]:
        """Let an account invoke a Cloud Run service."""
        return (
            TERRAFORM
            if "careflow-scheduler" in member
            else f"make -C infra apply ENVIRONMENT={self.environment}",
            "# or, until the next apply:",
            f"gcloud run services add-iam-policy-binding {service} --region={self.location} --project={self.project}"
            f" --member={shlex.quote(member)} --role=roles/run.invoker",
        )

    def careflow(self, *words: str) -> str:
        """A command of ours on this set-up's data."""
        return _line("careflow", *words, *self.data)

    def queue(self, verb: str, queue: str) -> str:
        """A command of gcloud's about a queue."""
        return f"gcloud tasks queues {verb} {queue} --project={self.project} --location={self.location}"

    def resume_queue(self, queue: str, work_alike: str) -> str:
        """Have a paused queue deliver again; `work_alike` is the address of one that is not Google's."""
        if not work_alike:
            return self.queue("resume", queue)
        name = f"projects/{self.project}/locations/{self.location}/queues/{queue}"
        return f"curl -sS -X POST -H 'Content-Type: application/json' -d '{{}}' {work_alike}/v2/{name}:resume"

    def infra(self) -> str:
        """Put back what infra/ describes."""
        return f"make -C infra apply ENVIRONMENT={self.environment}"


def _line(*words: str) -> str:
    return shlex.join(words)
