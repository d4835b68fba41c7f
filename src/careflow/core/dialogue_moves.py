"""The moves of the check-in conversation: ask, record, go on, escalate, close. `core.dialogue` decides which an event makes."""

from __future__ import annotations

from collections.abc import Iterable

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Answer, Triage
from careflow.core.conversation import Finished
from careflow.core.dialogue_draft import Draft
from careflow.core.dialogue_state import Phase
from careflow.core.script import Question
from careflow.core.triage import UNANSWERED, assess

ASIDES = 2  # questions back per question; after that they count as not answered
MOST_PROMPTS = 80  # a conversation that talks past this is brought to its end
KEEP = 500  # characters of free words that a check-in keeps
_TRIES = {Phase.YEAR: 2, Phase.STOP: 2}


class Moves(Draft):
    """What a step may do with the state; none of it looks at the event."""

    # --- moves -------------------------------------------------------------------------------------------------

    def _frame_answer(self, *, yes: bool) -> None:
        match self.state.phase:
            case Phase.NAME if yes and self.state.context.patient.birth_date is None:
                self._confirm()
            case Phase.NAME:
                self._turn_to(Phase.YEAR if yes else Phase.AVAILABLE)
            case Phase.AVAILABLE if yes:
                self._hold("available_wait")
            case Phase.AVAILABLE:
                self._close(Ending.CALL_LATER, "closing_call_later")
            case _ if yes:
                self._opt_out()
            case _:
                self._turn_to(self.state.back)

    def _confirm(self) -> None:
        self._set(confirmed=True)
        self._save()
        self._go_to(0)

    def _go_to(self, index: int, *, lead: Iterable[str] = ()) -> None:
        """Ask the script's question of that number, or close after the last."""
        self._set(index=index)
        if index < len(self.state.questions()):
            self._turn_to(Phase.ASKING, lead=lead)
            return
        fine = assess(self.state.answers, self.state.alerts) is Triage.GREEN
        self._close(Ending.COMPLETE, "closing_complete" if fine else "closing_noted", lead=lead)

    def _turn_to(self, phase: Phase, *, lead: Iterable[str] = ()) -> None:
        self._set(phase=phase, misses=0, asides=0, unsure=False, keys="")
        self._ask(lead=lead)

    def _record(self, value: str, text: str, *, key: str = "", warned: bool = False) -> None:
        """Keep the answer, follow its rules, go on. `key` is what rules call the value when it is free words."""
        question, state = self._question(), self.state
        answer = Answer(
            question_id=question.id, value=value, text=text[:KEEP], asked=min(state.misses + 1, 3)
        )
        self._set(answers=(*state.answers, answer))
        rules = [rule for rule in question.rules if rule.holds(key or value)]
        red = [rule.code for rule in rules if rule.alert is AlertKind.RED_FLAG]
        if red:
            self._set(index=state.index + 1)
            self._escalate(red)
            return
        lead = [rule.say[state.language] for rule in rules if rule.say]
        for rule in rules:
            if not (warned and rule.alert is AlertKind.WARNING):  # the symptom itself says more than the rule
                self._raise(rule.alert, rule.code)
        self._save()
        self._go_to(state.index + 1, lead=lead)

    def _miss(self, *, unsure: bool = False) -> None:
        """Nothing usable came: the next wording, and after the last one go on without."""
        state = self.state
        self._set(misses=state.misses + 1, unsure=unsure or state.unsure)
        if self.state.misses < _TRIES.get(state.phase, 3):
            self._ask()
        elif state.phase is Phase.STOP:
            self._turn_to(state.back)
        elif state.phase is Phase.ASKING:
            self._set(misses=state.misses)
            self._record("unsure" if self.state.unsure else UNANSWERED, "")
        else:
            self._close(Ending.NOT_UNDERSTOOD, "closing_not_understood")

    def _aside(self, *lead: str) -> None:
        """Answer a question back (or just repeat ours), a bounded number of times."""
        if self.state.asides >= ASIDES:
            self._miss()
            return
        self._set(asides=self.state.asides + 1)
        self._ask(*lead)

    def _call_back(self) -> None:
        if self._raise(AlertKind.CALLBACK, "person"):
            self._save()
            self._ask("callback") if self.state.phase is not Phase.HOLDING else self._return_from_hold()
        elif self.state.phase is Phase.HOLDING:
            self._return_from_hold()
        else:
            self._aside("callback")

    def _hold(self, prompt: str = "hold") -> None:
        if self.state.asides >= ASIDES:
            self._miss()
            return
        back = self.state.phase if self.state.confirmed else Phase.NAME
        self._set(phase=Phase.HOLDING, back=back, asides=self.state.asides + 1, keys="")
        self._say(prompt)

    def _return_from_hold(self) -> None:
        """Ask again. `misses` and `asides` go on counting, so that holding for ever is not possible."""
        self._set(phase=self.state.back)
        self._miss()

    def _speak(self, language: str) -> bool:
        if language == self.state.language:
            return False
        self._set(language=language)
        if self.state.phase is Phase.HOLDING:
            self._set(phase=self.state.back)
        self._ask()
        return True

    def _mark_opted_out(self) -> None:
        self._set(opted_out_number=True, opted_out_patient=self.state.confirmed)

    def _opt_out(self) -> None:
        self._mark_opted_out()
        self._close(Ending.OPTED_OUT, "closing_opted_out")

    def _escalate(self, codes: Iterable[str]) -> None:
        """Red flag: the alert, the checkpoint, then silence, then the emergency wording (invariant 5)."""
        new = [code for code in codes if self._raise(AlertKind.RED_FLAG, code)]
        escalated = self.state.ending is Ending.ESCALATED
        self._set(ending=Ending.ESCALATED)
        if new or not escalated:
            self._save()
        if not escalated:
            self._set(phase=Phase.EMERGENCY)
            self._say("emergency")

    def _close(self, ending: Ending, closing: str, *, lead: Iterable[str] = ()) -> None:
        self._set(phase=Phase.CLOSING, ending=ending, closing=closing, keys="")
        self._save()
        self._say(closing, "goodbye", lead=lead)

    def _finish(self, ending: Ending | None, *, voicemail: bool = False) -> None:
        state = self.state
        self._set(phase=Phase.OVER, ending=ending, speaking="", waiting="")
        self.effects.append(
            Finished(
                ending,
                voicemail=voicemail,
                opted_out_patient=state.opted_out_patient,
                opted_out_number=state.opted_out_number,
            )
        )

    # --- speaking ----------------------------------------------------------------------------------------------

    def _ask(self, *before: str, lead: Iterable[str] = ()) -> None:
        """Speak the present question in the wording that its misses call for; `before` are prompts spoken first."""
        state, question = self.state, self._question()
        if state.spoken >= MOST_PROMPTS:
            self._give_up()
            return
        wording = question.wordings[state.language]
        keypad = state.deaf or state.misses >= 2
        text = wording.keypad if keypad else wording.reask if state.misses else wording.ask
        prompt = state.context.script.prompts
        opening: list[tuple[str, str, str]] = []
        if state.phase is Phase.NAME and not before:
            other = "es" if state.language == "en" else "en"
            opening.append(("greeting", prompt[state.language]["greeting"], state.language))
            if state.misses == 0:
                opening.append(("language", prompt[other]["other_language"], other))
        said = [(key, prompt[state.language][key], state.language) for key in before]
        led = [("reply", reply, state.language) for reply in lead]
        self._play([*led, *opening, *said, (question.id, text, state.language)])

    def _give_up(self) -> None:
        """The conversation leads nowhere: what was not asked stays unanswered."""
        if not self.state.confirmed:
            self._close(Ending.NOT_UNDERSTOOD, "closing_not_understood")
            return
        rest = self.state.questions()[self.state.index :]
        for question in rest:
            self._set(
                answers=(*self.state.answers, Answer(question_id=question.id, value=UNANSWERED, asked=0))
            )
            for rule in question.rules:
                if rule.holds(UNANSWERED):
                    self._raise(rule.alert, rule.code)
        self._set(index=len(self.state.questions()))
        self._close(Ending.COMPLETE, "closing_noted")

    # --- small things ------------------------------------------------------------------------------------------

    def _question(self) -> Question:
        question = self.state.question()
        if question is None:
            raise AssertionError(f"no question in phase {self.state.phase}")
        return question

    def _birth_year(self) -> int:
        born = self.state.context.patient.birth_date
        return born.year if born else 0
