"""As much of PromQL as infra/monitoring uses, over counted events: what an alert's query would say of a log.

The query is parsed by someone else's parser; `increase` is exact here, while Google's may extrapolate.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import promql_parser

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_MATCHES: Mapping[str, Callable[[str, str], bool]] = {
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "Re": lambda found, wanted: re.fullmatch(wanted, found) is not None,
    "NotRe": lambda found, wanted: re.fullmatch(wanted, found) is None,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "/": operator.truediv,
    "-": operator.sub,
    "+": operator.add,
    "*": operator.mul,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """So many events of the series `name` at an instant."""

    at: datetime
    name: str
    labels: Mapping[str, str]
    value: float = 1.0


def evaluate(query: str, samples: Sequence[Sample], now: datetime) -> Vector:
    """The query's vector at `now`. Raises ValueError for what is no PromQL, NotImplementedError for what is not known here."""
    found = _Evaluation(samples, now).of(promql_parser.parse(query))
    return found if isinstance(found, dict) else {frozenset(): found}


class _Evaluation:
    def __init__(self, samples: Sequence[Sample], now: datetime) -> None:
        self._samples = samples
        self._now = now

    def of(self, node: Any) -> Vector | float:
        match type(node).__name__:
            case "ParenExpr":
                return self.of(node.expr)
            case "NumberLiteral":
                return float(node.val)
            case "AggregateExpr":
                return self._aggregate(node)
            case "Call":
                return self._call(node)
            case "BinaryExpr":
                return self._binary(node)
        raise NotImplementedError(type(node).__name__)

    def _call(self, node: Any) -> Vector:
        match node.func.name:
            case "increase":
                return self._increase(node.args[0])
            case "vector":
                return {frozenset(): float(node.args[0].val)}
            case "histogram_quantile":
                buckets = self.of(node.args[1])
                assert isinstance(buckets, dict)
                return _quantile(float(node.args[0].val), buckets)
        raise NotImplementedError(node.func.name)

    def _increase(self, matrix: Any) -> Vector:
        selector, found = matrix.vector_selector, {}
        matchers = [(_MATCHES[str(m.op).split(".")[1]], m.name, m.value) for m in selector.matchers.matchers]
        for sample in self._samples:
            if (
                sample.name == selector.name
                and self._now - matrix.range < sample.at <= self._now
                and all(holds(sample.labels.get(name, ""), value) for holds, name, value in matchers)
            ):
                key = frozenset(sample.labels.items())
                found[key] = found.get(key, 0.0) + sample.value
        return found

    def _aggregate(self, node: Any) -> Vector:
        assert str(node.op) == "sum"
        inner, by = self.of(node.expr), set(node.modifier.labels if node.modifier else ())
        assert isinstance(inner, dict)
        found: Vector = {}
        for labels, value in inner.items():
            key = frozenset((name, text) for name, text in labels if name in by)
            found[key] = found.get(key, 0.0) + value
        return found

    def _binary(self, node: Any) -> Vector | float:
        op, left, right = str(node.op), self.of(node.lhs), self.of(node.rhs)
        if not isinstance(left, dict):
            assert not isinstance(right, dict), "a number stands to the right of a vector here"
            return _ARITHMETIC[op](left, right)
        if not isinstance(right, dict):
            if op in _COMPARISONS:
                return {key: value for key, value in left.items() if _COMPARISONS[op](value, right)}
            return {key: _ARITHMETIC[op](value, right) for key, value in left.items()}
        matching = node.modifier.matching if node.modifier else None

        def on(labels: Labels) -> Labels:
            return (
                labels if matching is None else frozenset(one for one in labels if one[0] in matching.labels)
            )

        others = {on(key): value for key, value in right.items()}
        match op:
            case "and":
                return {key: value for key, value in left.items() if on(key) in others}
            case "unless":
                return {key: value for key, value in left.items() if on(key) not in others}
            case "or":
                ours = {on(key) for key in left}
                return left | {key: value for key, value in right.items() if on(key) not in ours}
        return {
            key: _ARITHMETIC[op](value, others[on(key)])
            for key, value in left.items()
            if others.get(on(key))  # 0/0 is NaN there, which no comparison lets through
        }


def _quantile(share: float, buckets: Vector) -> Vector:
    """Prometheus' linear interpolation within the bucket."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"].replace("+Inf", "inf"))
        rest = frozenset(one for one in labels if one[0] != "le")
        series.setdefault(rest, []).append((bound, count))
    found: Vector = {}
    for rest, cumulative in series.items():
        steps = sorted(cumulative)
        rank, below, start = share * steps[-1][1], 0.0, 0.0
        for bound, count in steps:
            if count >= rank:
                width = 0.0 if math.isinf(bound) else bound - start
                found[rest] = start + width * ((rank - below) / (count - below) if count > below else 0)
                break
            below, start = count, bound
    return found
