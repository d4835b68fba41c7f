"""`infra/monitoring` after an apply, asked as Google's monitoring asks it: lines that a filter holds, and their counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.compat.terraform.workshop import ROOT

from careflow.scheduler import log_filter
from log_lines import Entry
from promql import Sample
from pulse_world import EIGHT_FIFTEEN

CONFIGURATION = ROOT / "infra" / "monitoring"


def named(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The resources of that kind, by their key."""
    return {address.split('"')[1]: one for address, one in state.items() if address.startswith(f"{prefix}[")}


def holds(text: str, entry: Entry) -> bool:
    return all(comparison.holds(entry) for comparison in log_filter.parse(text))


def metrics(state: Mapping[str, Any]) -> dict[str, Any]:
    return named(state, "google_logging_metric.counters") | named(
        state, "google_logging_metric.distributions"
    )


def extracted(entry: Entry, extractor: str) -> str:
    """`EXTRACT(a.b)` of a LogEntry."""
    path = re.fullmatch(r"EXTRACT\(([\w.]+)\)", extractor)
    assert path, extractor
    found: Any = entry
    for part in path[1].split("."):
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    return str(found)


def counted(state: Mapping[str, Any], entries: Sequence[Entry]) -> list[Sample]:
    """What the metrics make of the entries, as PromQL finds it."""
    return [
        sample
        for metric in metrics(state).values()
        for entry in entries
        if holds(metric["filter"], entry)
        for sample in samples(metric, entry)
    ]


def samples(metric: Mapping[str, Any], entry: Entry) -> Iterator[Sample]:
    name = f"logging_googleapis_com:user_{metric['name']}"
    at = datetime.fromisoformat(entry["timestamp"])
    extractors = metric["label_extractors"] or {}
    labels = {label: extracted(entry, extractor) for label, extractor in extractors.items()}
    labels |= entry["resource"]["labels"] | {"monitored_resource": entry["resource"]["type"]}
    if not metric["value_extractor"]:
        yield Sample(at, name, labels)
        return
    value = float(extracted(entry, metric["value_extractor"]))
    for bound in (*metric["bucket_options"][0]["explicit_buckets"][0]["bounds"], float("inf")):
        yield Sample(at, f"{name}_bucket", labels | {"le": str(bound)}, float(value <= bound))


def later(**span: float) -> datetime:
    return EIGHT_FIFTEEN + timedelta(**span)


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a query."""
    match type(node).__name__:
        case "VectorSelector":
            yield node
        case "MatrixSelector":
            yield node.vector_selector
        case "BinaryExpr":
            yield from (one for side in (node.lhs, node.rhs) for one in selectors(side))
        case "ParenExpr" | "AggregateExpr":
            yield from selectors(node.expr)
        case "Call":
            yield from (one for argument in node.args for one in selectors(argument))
