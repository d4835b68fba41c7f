"""What a month costs at list prices: `python -m bench.costs` prints the tables of docs/costs.md.

Prices are data, each with its source; what is assumed of a hospital and what was counted are arguments. United States, dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MILLION = 1_000_000.0
GIB = 1024.0**3
HOURS_A_MONTH = 730.0
SWEEPS_AN_HOUR = 12


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for `per` units; the first `free` a month (or a day, if `daily`) cost nothing.

    `source` says where it was read, as of 2026-11; `confirmed` is false for what is remembered or third-party.
    """

    dollars: float
    per: float
    unit: str
    source: str
    free: float = 0.0
    daily: bool = False
    confirmed: bool = True

    def month(self, amount: float, days: int) -> float:
        """Dollars for so many units in a month of so many days, the same on each."""
        free = self.free * (days if self.daily else 1)
        return max(0.0, amount - free) * self.dollars / self.per


_FIRESTORE = "google-cloud section 3: multi-region; a single region is about half, unconfirmed"
_RUN = "cloud.google.com/run/pricing, tier 1"
_USUAL = "commonly published, not in the references"
_ELEVENLABS = "elevenlabs section 11: third-party summaries"

PRICES = {
    "jobs": Price(0.10, 1, "jobs", "cloud-scheduler section 13", free=3),
    "tasks": Price(0.40, MILLION, "operations", "google-cloud section 1", free=MILLION, confirmed=False),
    "reads": Price(0.06, 100_000, "documents", _FIRESTORE, free=50_000, daily=True),
    "writes": Price(0.18, 100_000, "documents", _FIRESTORE, free=20_000, daily=True),
    "deletes": Price(0.02, 100_000, "documents", _FIRESTORE, free=20_000, daily=True),
    "stored": Price(0.18, 1, "GiB", _USUAL, free=1, confirmed=False),
    "recovery": Price(0.18, 1, "GiB", _USUAL, confirmed=False),
    "backups": Price(0.03, 1, "GiB", _USUAL, confirmed=False),
    "kept cpu": Price(0.000018, 1, "vCPU-s", _RUN, free=240_000),
    "kept memory": Price(0.000002, 1, "GiB-s", _RUN, free=450_000),
    "asked cpu": Price(0.000024, 1, "vCPU-s", _RUN, free=180_000),
    "asked memory": Price(0.0000025, 1, "GiB-s", _RUN, free=360_000),
    "idle cpu": Price(0.0000025, 1, "vCPU-s", _USUAL, confirmed=False),
    "requests": Price(0.40, MILLION, "requests", _RUN, free=2 * MILLION),
    "network": Price(0.12, 1, "GiB", _USUAL, free=1, confirmed=False),
    "logs": Price(0.50, 1, "GiB", "google-cloud section 4", free=50),
    "secrets": Price(0.06, 1, "versions", "google-cloud section 5", free=6),
    "images": Price(0.10, 1, "GB", "cloud.google.com/artifact-registry/pricing", free=0.5),
    "audio": Price(0.02, 1, "GiB", _USUAL, confirmed=False),
    "voice": Price(0.0140, 1, "minutes", _USUAL, confirmed=False),
    "stream": Price(0.0040, 1, "minutes", _USUAL, confirmed=False),
    "verdicts": Price(0.0075, 1, "calls", "twilio section 10"),
    "numbers": Price(1.15, 1, "numbers", _USUAL, confirmed=False),
    "heard": Price(0.39, 1, "hours", _ELEVENLABS, confirmed=False),
    "spoken": Price(0.05, 1000, "characters", _ELEVENLABS, confirmed=False),
}


@dataclass(frozen=True, slots=True)
class Documents:
    """Reads, writes and deletes of one thing."""

    reads: float = 0.0
    writes: float = 0.0
    deletes: float = 0.0

    def times(self, count: float) -> Documents:
        return Documents(self.reads * count, self.writes * count, self.deletes * count)

    def plus(self, other: Documents) -> Documents:
        return Documents(self.reads + other.reads, self.writes + other.writes, self.deletes + other.deletes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What `python -m bench firestore` counted on 2026-11-23 (docs/measurements.md)."""

    round: Documents = Documents(reads=16, writes=5)  # planning and closing it, whoever is in it
    planned: Documents = Documents(reads=1.07, writes=1)  # each patient
    answered: Documents = Documents(reads=113, writes=25, deletes=2)  # a call, with its one attempt
    answered_minutes: float = 1.0  # of that call
    # Every further one: two processes look every 5 s (caller/watch.py), Pulse renews its lease every 20 s.
    minute: Documents = Documents(reads=27, writes=3)
    unanswered: Documents = Documents(reads=56, writes=12, deletes=2)  # an attempt
    sweep: Documents = Documents(reads=5)  # and a read for each call that is left
    idle_hour: Documents = Documents(reads=284)  # one instance of each service
    looks_a_minute: float = 4.0  # reads for each attempt in flight: two Callers, every 30 s
    answered_requests: tuple[float, float] = (1.2, 8.2)  # to Pulse; to both Callers
    unanswered_requests: tuple[float, float] = (1.07, 4.07)
    log_bytes: float = 1_000.0  # a call


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """What is assumed."""

    patients: int = 1000
    rounds_a_day: int = 3
    days: int = 30
    answered: float = 0.70  # of the calls, in the end
    attempts: float = 1.5  # a call, on the average
    minutes: float = 2.0  # of conversation
    ring_seconds: float = 25.0
    calls_in_flight: int = 30  # CAREFLOW_CALLS_IN_FLIGHT; 10, the default, would take 4 hours a round
    calls_per_second: float = 1.0  # CAREFLOW_CALLS_PER_SECOND
    characters: float = 300.0  # of speech that no other call has in the cache, a conversation
    callers_kept: int = 2  # instances that are always there: caller-agent, caller-agent-twilio
    caller_memory_gib: float = 1.5  # of both
    pulse_memory_gib: float = 0.5
    jobs: int = 8  # three rounds and a sweep, in staging and in production
    secrets: int = 3
    images_gb: float = 5.0
    months_kept: int = 12  # of records
    bytes_a_call: float = 12_000.0  # of documents and indexes
    backups: int = 30  # daily, whole
    request_log_bytes: float = 1_000.0  # Cloud Run's own line for each request
    megabytes_a_minute: float = 1.8  # out: sound to Twilio, and to the speech recogniser

    @property
    def calls(self) -> float:
        return self.patients * self.rounds_a_day * self.days

    @property
    def conversations(self) -> float:
        return self.calls * self.answered

    @property
    def unanswered(self) -> float:
        """Attempts that nobody answers."""
        return self.calls * self.attempts - self.conversations

    @property
    def attempt_minutes(self) -> float:
        """A telephone is in use, ringing or talking."""
        ringing = self.calls * self.attempts * self.ring_seconds / 60
        return ringing + self.conversations * self.minutes

    @property
    def busy_hours(self) -> float:
        """Calls are in flight: as many at a time as may be."""
        return self.attempt_minutes / self.calls_in_flight / 60

    @property
    def looked_at(self) -> float:
        """Calls that sweeps look at: no more at a time than the queue begins until the next, and fewer when fewer are left.

        All calls of a round are due at once and worked off evenly. Both the job and Pulse sweep.
        """
        most = self.calls_per_second * 3600 / SWEEPS_AN_HOUR
        fewer = min(1.0, most / self.patients)  # that part of the time there are not so many left
        at_a_time = most * (1 - fewer) + fewer * min(most, self.patients) / 2
        return 2 * SWEEPS_AN_HOUR * self.busy_hours * at_a_time

    @property
    def billed_minutes(self) -> float:
        """Each conversation rounded up to the minute, half a minute on the average."""
        return self.conversations * (self.minutes + 0.5)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the bill."""

    what: str
    amount: float
    price: Price
    dollars: float


def documents(hospital: Hospital, counted: Counted) -> Documents:
    """Documents of a month, by what they are counted for."""
    sweeps = SWEEPS_AN_HOUR * 24 * hospital.days
    return (
        counted.round.times(hospital.rounds_a_day * hospital.days)
        .plus(counted.planned.times(hospital.calls))
        .plus(counted.answered.times(hospital.conversations))
        .plus(counted.minute.times(hospital.conversations * (hospital.minutes - counted.answered_minutes)))
        .plus(counted.unanswered.times(hospital.unanswered))
        .plus(counted.idle_hour.times(24 * hospital.days))
        .plus(counted.sweep.times(sweeps))
        .plus(Documents(reads=hospital.looked_at + counted.looks_a_minute * hospital.attempt_minutes))
    )


def month(hospital: Hospital, counted: Counted) -> Sequence[tuple[str, Sequence[Line]]]:
    """The bill, by whom it comes from and for what."""
    used = documents(hospital, counted)
    stored = hospital.calls * hospital.months_kept * hospital.bytes_a_call / GIB
    month_seconds = HOURS_A_MONTH * 3600
    busy_seconds = hospital.busy_hours * 3600
    pulse_idle = month_seconds - busy_seconds
    to_pulse, to_callers = (
        hospital.conversations * answered + hospital.unanswered * unanswered
        for answered, unanswered in zip(counted.answered_requests, counted.unanswered_requests, strict=True)
    )
    logged = (hospital.calls * counted.log_bytes + (to_pulse + to_callers) * hospital.request_log_bytes) / GIB

    def line(what: str, name: str, amount: float) -> Line:
        price = PRICES[name]
        return Line(what, amount, price, price.month(amount, hospital.days))

    return (
        ("Cloud Scheduler", [line("jobs, staging and production", "jobs", hospital.jobs)]),
        # Each is created, and delivered, once for each attempt; sweeps ask for it again.
        (
            "Cloud Tasks",
            [
                line(
                    "tasks made and delivered",
                    "tasks",
                    2 * hospital.calls * hospital.attempts + hospital.looked_at,
                )
            ],
        ),
        (
            "Firestore",
            [
                line("documents read", "reads", used.reads),
                line("documents written", "writes", used.writes),
                line("documents deleted", "deletes", used.deletes),
                line(f"records of {hospital.months_kept} months", "stored", stored),
                line("recovery to any minute of a week", "recovery", stored / hospital.months_kept / 4),
                line(f"{hospital.backups} daily backups", "backups", stored * hospital.backups),
            ],
        ),
        (
            "Cloud Run",
            [
                line("Callers, CPU kept", "kept cpu", hospital.callers_kept * month_seconds),
                line("Callers, memory", "kept memory", hospital.caller_memory_gib * month_seconds),
                line("Pulse, CPU while it holds calls", "asked cpu", busy_seconds),
                line("Pulse, memory then", "asked memory", hospital.pulse_memory_gib * busy_seconds),
                line("Pulse, one kept idle", "idle cpu", (1 + hospital.pulse_memory_gib) * pulse_idle),
                line("requests to Pulse", "requests", to_pulse),
                line(
                    "network out",
                    "network",
                    hospital.conversations * hospital.minutes * hospital.megabytes_a_minute / 1024,
                ),
            ],
        ),
        (
            "The rest of Google",
            [
                line("Cloud Logging", "logs", logged),
                line("Secret Manager", "secrets", hospital.secrets),
                line("Artifact Registry", "images", hospital.images_gb),
                line("Cloud Storage, audio cache", "audio", 1),
            ],
        ),
        (
            "Twilio",
            [
                line("calls, each rounded up to a minute", "voice", hospital.billed_minutes),
                line("their media streams", "stream", hospital.billed_minutes),
                line("verdicts on who answered", "verdicts", hospital.calls * hospital.attempts),
                line("a number", "numbers", 1),
            ],
        ),
        (
            "ElevenLabs",
            [
                line("speech heard", "heard", hospital.conversations * hospital.minutes / 60),
                line("speech made", "spoken", hospital.conversations * hospital.characters),
            ],
        ),
    )


def table(hospital: Hospital, counted: Counted) -> str:
    """The bill as Markdown; (u) marks prices that are unconfirmed."""
    rows = ["| from | for | a month | $ |", "| --- | --- | ---: | ---: |"]
    total = google = 0.0
    for vendor, lines in month(hospital, counted):
        for one in lines:
            doubt = "" if one.price.confirmed else " (u)"
            rows.append(
                f"| {vendor} | {one.what}{doubt} | {_short(one.amount)} {one.price.unit} | {one.dollars:,.2f} |"
            )
            total += one.dollars
            google += one.dollars if vendor not in ("Twilio", "ElevenLabs") else 0.0
    rows += [
        f"| **Google in all** | | | **{google:,.2f}** |",
        f"| **everything** | {total / hospital.conversations:.3f} a conversation | | **{total:,.2f}** |",
    ]
    return "\n".join(rows)


def prices() -> str:
    """The prices as Markdown."""
    rows = ["| | list price | free | from |", "| --- | --- | --- | --- |"]
    for name, one in PRICES.items():
        cents = len(f"{one.dollars:.7f}".rstrip("0").partition(".")[2])
        dollars = f"{one.dollars:.{max(2, cents)}f}"
        for_what = f"${dollars} for {one.per:,.0f} {one.unit}"
        free = f"{_short(one.free)} a {'day' if one.daily else 'month'}" if one.free else ""
        doubt = "" if one.confirmed else " (u)"
        rows.append(f"| {name}{doubt} | {for_what} | {free} | {one.source} |")
    return "\n".join(rows)


def _short(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


if __name__ == "__main__":
    print(table(Hospital(), Counted()), prices(), sep="\n\n")
