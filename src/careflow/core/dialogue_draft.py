"""One step of the dialogue in the making: the state so far, the effects so far, and how both grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from careflow.core.checkins import AlertKind, Turn
from careflow.core.conversation import Await, Effect, RaiseAlert, Save, Say, StopSpeaking
from careflow.core.dialogue_state import Dialogue, Phase


class Draft:
    """Mutable only inside `dialogue.step`; what leaves it is `state` and `effects`."""

    def __init__(self, dialogue: Dialogue, now: datetime) -> None:
        self.state = dialogue
        self.now = now
        self.effects: list[Effect] = []

    def _say(self, *keys: str, lead: Iterable[str] = ()) -> None:
        """Speak prompts of the script's frame, one after the other."""
        language = self.state.language
        texts = self.state.context.script.prompts[language]
        self._play(
            [*(("reply", text, language) for text in lead), *((key, texts[key], language) for key in keys)]
        )

    def _play(self, parts: list[tuple[str, str, str]]) -> None:
        self._silence()
        for name, template, language in parts:
            text = self.state.context.fill(template, language)
            mark = self._mark(name)
            self.effects.append(Say(mark, text, language))
            self._turn("agent", text)
            self._set(speaking=mark, waiting="")

    def _silence(self) -> None:
        if self.state.speaking:
            self.effects.append(StopSpeaking())
            self._set(speaking="")

    def _await(self, mark: str, *, seconds: float | None = None) -> None:
        waits, state = self.state.context.script.waits, self.state
        if seconds is None:
            match state.phase:
                case Phase.HOLDING:
                    seconds = waits.hold
                case Phase.MACHINE:
                    seconds = waits.machine
                case Phase.YEAR | Phase.STOP:
                    seconds = waits.keypad
                case _:
                    seconds = waits.keypad if state.deaf or state.misses >= 2 else waits.voice
        self._set(waiting=mark)
        self.effects.append(Await(mark, seconds))

    def _mark(self, name: str) -> str:
        self._set(spoken=self.state.spoken + 1)
        return f"p{self.state.spoken}-{name}"

    def _save(self) -> None:
        # The shell stores the state after the whole step: two in a row are one.
        if not self.effects or self.effects[-1] != Save():
            self.effects.append(Save())

    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def _raise(self, kind: AlertKind, code: str) -> bool:
        """Raise it if this conversation has not; whether it did."""
        if (kind, code) in self.state.alerts:
            return False
        self._set(alerts=(*self.state.alerts, (kind, code)))
        self.effects.append(RaiseAlert(kind, code))
        return True

    def _note_symptoms(self, codes: Iterable[str]) -> None:
        self._set(symptoms=tuple(dict.fromkeys((*self.state.symptoms, *codes))))

    def _turn(self, speaker: str, text: str, *, via: str = "voice") -> None:
        self._set(turns=(*self.state.turns, Turn(speaker=speaker, text=text, at=self.now, via=via)))
