"""What the scheduler refuses. None of these knows how a wire says it."""

from __future__ import annotations

from careflow.errors import CareflowError


class SchedulerError(CareflowError):
    """The scheduler refused; nothing was changed."""


class JobNotFound(SchedulerError):
    """There is no such job."""

    def __init__(self, name: str) -> None:
        super().__init__(f"job {name!r} does not exist")
        self.name = name


class JobExists(SchedulerError):
    """The name is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(f"job {name!r} exists already")
        self.name = name


class JobWrongState(SchedulerError):
    """The job's state does not allow what was asked."""

    def __init__(self, name: str, state: str, accepted: str) -> None:
        super().__init__(f"job {name!r} is {state}; it must be {accepted}")
        self.name = name
        self.state = state


class InvalidSchedule(SchedulerError):
    """A schedule or a time zone cannot be used. `field` is the Job's: "schedule" or "time_zone"."""

    def __init__(self, field: str, value: str, problem: str, accepted: str) -> None:
        super().__init__(f"{field} {value!r}: {problem}; accepted: {accepted}")
        self.field = field
        self.value = value
        self.accepted = accepted
