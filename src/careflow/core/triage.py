# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""From symptoms and answers to how worrying a check-in is, for one patient with that patient's own list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from careflow.core.checkins import AlertKind, Answer, Triage
from careflow.core.patients import Patient
from careflow.core.symptoms import GENERAL, Level, Mention, Symptom, by_code, mentions
from careflow.core.words import plain, words

UNANSWERED = "unanswered"
_SMALL = frozenset(
    "a an and any at by for from greater in into less more my new of on or over pound pounds lb lbs kg kilos per than the "
    "to under with within your y o de del el en la las los mas mi que su sus un una con por".split()
)


@dataclass(frozen=True, slots=True)
class Watch:
    """What is listened for in one patient's speech: the general catalogue with the patient's own symptoms put first.

    `critical` and `warning` are the patient's own, to be named in prompts; empty when the care plan has none.
    """

    symptoms: tuple[Symptom, ...]
    critical: tuple[Symptom, ...]
    warning: tuple[Symptom, ...]

    def mentions(self, text: str) -> tuple[Mention, ...]:
        """Every symptom spoken of, affirmed or denied."""
        return mentions(text, self.symptoms)


def watch_for(patient: Patient) -> Watch:
    """The patient's watch list. A code of the catalogue, or a phrase that names one, gets the patient's own level.

    An always-critical symptom stays critical even where the care plan calls it a warning.
    """
    critical = _own(patient.critical_symptoms, Level.CRITICAL)
    warning = tuple(s for s in _own(patient.warning_symptoms, Level.WARNING))
    own: dict[str, Symptom] = {}
    for symptom in (*critical, *warning):
        own.setdefault(symptom.code, symptom)
    rest = tuple(symptom for symptom in GENERAL if symptom.code not in own)
    return Watch((*own.values(), *rest), critical, warning)


def _own(entries: Sequence[str], level: Level) -> tuple[Symptom, ...]:
    known = by_code()
    found: list[Symptom] = []
    for entry in entries:
        code = entry if entry in known else next((m.code for m in mentions(entry)), "")
        # "pain" catches any ache; a care plan's "calf pain" must not make every pain critical.
        if code and (entry in known or code != "pain"):
            general = known[code]
            raised = level if general.level is not Level.CRITICAL else Level.CRITICAL
            found.append(replace(general, level=raised))
        elif phrase := _phrase(entry):
            slug = re.sub(r"[^a-z0-9]+", "-", plain(entry)).strip("-")[:40]
            found.append(Symptom(slug, level, {"en": entry, "es": entry}, (phrase,)))
    return tuple({symptom.code: symptom for symptom in found}.values())


def _phrase(entry: str) -> str:
    """A care plan's plain phrase as a search phrase: its first three telling words, endings left open."""
    telling = [
        word for word in words(entry.replace("-", " ")) if word not in _SMALL and not word[0].isdigit()
    ]
    return " ".join(_stem(word) for word in telling[:3])


def _stem(word: str) -> str:
    for ending in ("ing", "ness", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending) + "*"
    return word + "*" if len(word) >= 4 else word


def affirmed(found: Iterable[Mention], level: Level) -> tuple[str, ...]:
    """The codes of that level which the speaker has, or may have."""
    return tuple(mention.code for mention in found if mention.level is level and not mention.denied)


def assess(answers: Iterable[Answer], alerts: Iterable[tuple[AlertKind, str]]) -> Triage:
    """RED when a red flag was raised; YELLOW when anything else was, or a question stayed without a clear answer."""
    kinds = {kind for kind, _ in alerts}
    if AlertKind.RED_FLAG in kinds:
        return Triage.RED
    if kinds or any(answer.value in (UNANSWERED, "unsure") for answer in answers):
        return Triage.YELLOW
    return Triage.GREEN
