"""Structured logs: one JSON object a line, in the form Google Cloud Logging reads (severity, message, time), ids only.

A log line can only carry the keys of `FIELDS`; anything else is dropped and named in `dropped`. So a name, a number or
a word of a patient cannot reach the log by a slip: there is no key for it (invariant 7).
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog

from careflow.core.checkins import Alert
from careflow.instants import rfc3339
from careflow.ports import Clock

FIELDS = frozenset(
    {
        # Google's structured form
        "severity", "message", "time", "component", "labels", "httpRequest",
        "logging.googleapis.com/trace", "logging.googleapis.com/spanId",
        # ids
        "hospitalId", "roundId", "callId", "attemptId", "executionId", "alertId", "patientId", "callSid", "streamSid",
        "jobName", "taskName", "queue", "account",
        # the trigger and the round
        "source", "scheduleHour", "timezone", "triggerType", "environment", "patientsQueried", "callsInitiated",
        "skipped", "outcomes", "status", "revision",
        # what happened
        "state", "outcome", "reason", "disposition", "ending", "failure", "kind", "code", "triage", "number", "attempts",
        "dueAt", "count", "seconds", "bytes", "method", "route", "httpStatus", "version", "port", "url", "script", "language",
        "error", "where", "logger", "dropped", "operation", "permanent",
        "how", "why", "because", "deafBecause", "mark", "givenUp",
    }
)  # fmt: skip
"""Every key a log line may have. `patientId` is the roster's id, never a name; `url` is a base URL of ours."""

NUMBERS = frozenset(
    {
        "frames", "framesLost", "framesDuplicate", "framesLate", "framesReordered", "framesMalformed", "utterances",
        "heard", "unanswered", "late", "unasked", "deaf", "eventsDropped", "firstPromptMs", "answerMsMedian", "answerMsMax",
    }
)  # fmt: skip
"""Further keys, of a conversation's measurements: only numbers and truth values pass, so words cannot."""

_VALUE = re.compile(r"""[\n:(<{\['"=%]""")  # where the words of a library's message end and values may begin

_SEVERITY = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}
_CHATTY = (
    "httpx",
    "httpcore",
    "uvicorn.access",
    "uvicorn.error",
    "websockets",
    "a2a",
)  # they log URLs and bodies

Event = MutableMapping[str, Any]


def log_alert(log: Any, alert: Alert) -> None:
    """Say that the alert is stored: of what kind, and about which call. Its own id can hold a symptom, and is not told."""
    log.warning(
        "Alert raised",
        hospitalId=alert.hospital_id,
        roundId=alert.round_id,
        callId=alert.call_id,
        attemptId=alert.attempt_id,
        kind=alert.kind.value,
    )


def configure_logging(
    component: str, *, level: str = "INFO", clock: Clock | None = None, stream: TextIO | None = None
) -> None:
    """Send structlog's and the standard library's records to `stream` (stderr when None) as JSON lines.

    `clock` gives the `time` field; None leaves it out (the collector stamps the line). Called once, at start.
    """
    processors = _processors(component, clock)
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer(sort_keys=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LibraryFormatter(processors))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Instead of Python's own hooks, which print the error's words."""
    if error is None or isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
    else:
        structlog.get_logger().critical("uncaught error", exc_info=error)


def where(error: BaseException) -> str:
    """Where the error was raised, as `module:line`: enough to find it, and none of its words."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rpartition('/')[2]}:{last.lineno}"


def only_known_fields(logger: object, method: str, event: Event) -> Event:
    """Put every key in camelCase, drop what `FIELDS` and `NUMBERS` do not let pass, and say what was dropped."""
    named = {_camel(key): value for key, value in event.items()}
    known = {key: value for key, value in named.items() if key in FIELDS or _is_number(key, value)}
    unknown = sorted(named.keys() - known.keys())
    return known | ({"dropped": unknown} if unknown else {})


def _is_number(key: str, value: object) -> bool:
    return key in NUMBERS and (value is None or isinstance(value, (int, float)))


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _processors(component: str, clock: Clock | None) -> list[structlog.typing.Processor]:
    def google_form(logger: object, method: str, event: Event) -> Event:
        error = event.pop("exc_info", None)
        formed: dict[str, Any] = {
            "severity": _SEVERITY.get(method, "DEFAULT"),
            "message": event.pop("event", ""),
            "component": component,
        }
        if clock is not None:
            formed["time"] = rfc3339(clock.now())
        if error is True:
            error = sys.exc_info()[1]
        if isinstance(error, BaseException):
            formed |= {"error": type(error).__name__, "where": where(error)}
        return {**formed, **event}

    return [structlog.contextvars.merge_contextvars, google_form, only_known_fields]


def _message(record: logging.LogRecord) -> str:
    """What a record says. Ours is written with ids only; a library's is cut where values may begin.

    asyncio, for one, puts the whole error of a forgotten task into its message, and a callback's arguments.
    """
    if record.name.partition(".")[0] == __package__:
        return record.getMessage()
    return f"{_VALUE.split(str(record.msg), maxsplit=1)[0].strip()} ({record.filename}:{record.lineno})"


class _LibraryFormatter(logging.Formatter):
    """Records of the standard logging in the same form. Tracebacks are reduced to the error's class and place."""

    def __init__(self, processors: list[structlog.typing.Processor]) -> None:
        super().__init__()
        self._render = structlog.processors.JSONRenderer(sort_keys=False)
        self._processors = processors

    def format(self, record: logging.LogRecord) -> str:
        event: Any = {"event": _message(record), "logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            event["exc_info"] = record.exc_info[1]
        for processor in self._processors:
            event = processor(None, record.levelname.lower(), event)
        return str(self._render(None, record.levelname.lower(), event))
