"""Every check, in the order in which an operator should read them. A new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from careflow.doctor import (
    agents,
    configuration,
    ledger,
    platform,
    queue,
    rounds,
    schedule,
    vendors,
)
from careflow.doctor.examination import Check

CHECKS: Sequence[Check] = (
    Check(
        name="settings",
        about="settings, together and for the services they are for",
        run=configuration.settings,
    ),
    Check(name="packages", about="the extras that are installed", run=configuration.packages),
    Check(name="data", about="the data directory, and who runs on it", run=configuration.data_directory),
    Check(
        name="store",
        about="the ledger: reachable, writable, of this version",
        run=ledger.store,
        needs=("data",),
        writes="one probe, a counter",
    ),
    Check(name="queries", about="every kind of query, and its index", run=ledger.queries, needs=("store",)),
    Check(name="roster", about="who may be phoned, and when", run=ledger.roster, needs=("store",)),
    Check(
        name="queue",
        about="what carries the calls: the embedded queue",
        run=queue.embedded,
        needs=("store",),
        when=lambda set_up: set_up.settings.queue == "embedded",
    ),
    Check(
        name="queues",
        about="what carries the calls: Cloud Tasks",
        run=queue.cloud_tasks,
        when=lambda set_up: set_up.settings.queue == "cloud-tasks",
    ),
    Check(name="pulse", about="the Pulse agent, from outside", run=agents.pulse),
    Check(name="caller", about="the Caller agent, from outside", run=agents.caller),
    Check(name="twilio routes", about="what Twilio reaches of the Caller", run=agents.public),
    Check(
        name="clocks", about="this machine's clock and Pulse's", run=configuration.clocks, needs=("pulse",)
    ),
    Check(name="trigger", about="whether Pulse lets the scheduler in", run=agents.trigger, needs=("pulse",)),
    Check(name="jobs", about="the scheduler's jobs, and how they ended", run=schedule.scheduler),
    Check(
        name="rehearsal",
        about="each job's token, path and payload, at Pulse, for no environment",
        run=schedule.rehearsals,
        needs=("jobs", "pulse"),
    ),
    Check(
        name="arrivals",
        about="what the scheduler calls a success, in Pulse's ledger",
        run=schedule.arrivals,
        needs=("jobs", "store"),
    ),
    Check(name="telephone", about="Twilio's account and numbers; nobody is dialled", run=vendors.telephone),
    Check(name="speech", about="ElevenLabs' key, voices and quota", run=vendors.speech),
    Check(name="rounds", about="the last rounds and their alerts", run=rounds.rounds, needs=("store",)),
    Check(name="rights", about="who may invoke whom on Google Cloud", run=platform.rights),
)
