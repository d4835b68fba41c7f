"""The check-in conversation: a pure state machine. docs/dialogue.md draws it; `step` is total.

What must hold whatever comes in: nothing about health is said before identity is confirmed; a red flag in any free
speech raises its alert before the next word is spoken; `Finished` comes once, after the goodbye was heard.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from careflow.core.attempts import Attempt, Ending
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import (
    BargedIn,
    DeafNow,
    Effect,
    Event,
    HungUp,
    MachineAnswered,
    Pressed,
    Resumed,
    Spoken,
    Started,
    Waited,
)
from careflow.core.dialogue_moves import KEEP, Moves
from careflow.core.dialogue_state import (
    PHASES_WITH_QUESTION,
    CheckpointError,
    Dialogue,
    Phase,
    begin,
    from_json,
    to_json,
)
from careflow.core.patients import Patient
from careflow.core.script import LANGUAGES, PROMPTS, Question, QuestionKind, Script, placeholders
from careflow.core.symptoms import Level
from careflow.core.triage import affirmed, assess
from careflow.core.understanding import Intent, Meaning, Understood, understand
from careflow.core.words import plain

__all__ = [
    "CheckpointError",
    "Dialogue",
    "Phase",
    "begin",
    "check_in",
    "from_json",
    "prompts",
    "step",
    "to_json",
    "voicemail_message",
]

ECHO = timedelta(seconds=2)  # the same words or key again within this time is the same input, delivered twice

_INTRUSIVE = frozenset(  # wishes that count even while a prompt is playing; a late "yes" does not
    {
        Intent.OPT_OUT,
        Intent.WRONG_PERSON,
        Intent.PERSON,
        Intent.SPANISH,
        Intent.ENGLISH,
        Intent.CALL_LATER,
        Intent.DECLINE,
        Intent.NOT_HERE,
    }
)
_FREE_WORDS = frozenset(
    {Intent.CALL_LATER, Intent.DECLINE, Intent.NOT_HERE, Intent.WRONG_PERSON, Intent.HOLD}
)
_STRANGERS = frozenset(
    {Phase.NAME, Phase.AVAILABLE, Phase.HOLDING}
)  # where a machine may still turn out to listen
_MACHINES = frozenset({Phase.MACHINE, Phase.VOICEMAIL})
_RETRIED = frozenset({Ending.CALL_LATER, Ending.NOT_UNDERSTOOD, Ending.DECLINED})


def step(dialogue: Dialogue, event: Event, now: datetime) -> tuple[Dialogue, tuple[Effect, ...]]:
    """The dialogue after the event, and what to do, in order. `now` is an aware UTC datetime.

    Total: a late, repeated or pointless event changes nothing, and nothing comes after `Finished`.
    """
    if dialogue.phase is Phase.OVER:
        return dialogue, ()
    move = _Move(dialogue, now)
    move.take(event)
    return move.state, tuple(move.effects)


def check_in(dialogue: Dialogue, *, attempt: Attempt, ended_at: datetime) -> CheckIn:
    """The structured result, also of a conversation that was cut short. Its id is the attempt's."""
    script = dialogue.context.script
    return CheckIn(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        script=script.name,
        script_version=script.version,
        language=dialogue.language,
        identity_confirmed=dialogue.confirmed,
        triage=assess(dialogue.answers, dialogue.alerts),
        answers=dialogue.answers,
        symptoms=dialogue.symptoms,
        turns=dialogue.turns,
        started_at=dialogue.started_at or attempt.answered_at or ended_at,
        ended_at=ended_at,
    )


def voicemail_message(script: Script, patient: Patient, *, clinic_name: str, clinic_phone: str) -> str:
    """What is left on an answering machine: who called and the number to call back, nothing about health or the patient."""
    dialogue = begin(script, patient, clinic_name=clinic_name, clinic_phone=clinic_phone)
    return dialogue.context.fill(script.prompts[dialogue.language]["voicemail"], dialogue.language)


def prompts(script: Script, *, clinic_name: str, clinic_phone: str) -> tuple[tuple[str, str], ...]:
    """Every (text, language) that is the same for all patients: worth rendering before the first call."""
    nobody = Patient(id="", hospital_id="", given_name="", family_name="", time_zone="UTC")
    context = begin(script, nobody, clinic_name=clinic_name, clinic_phone=clinic_phone).context
    found: dict[tuple[str, str], None] = {}
    for language in LANGUAGES:
        texts = [script.prompts[language][key] for key in PROMPTS]
        for question in (*script.frame.values(), *script.questions):
            wording = question.wordings[language]
            texts += [
                wording.ask,
                wording.reask,
                wording.keypad,
                *(r.say[language] for r in question.rules if r.say),
            ]
        for text in texts:
            if placeholders(text) <= {"clinic_name", "callback_number"}:
                found[(context.fill(text, language), language)] = None
    return tuple(found)


class _Move(Moves):
    """One step in the making: what an event means in the present state."""

    # --- events ------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        state = self.state
        match event:
            case Started():
                if state.phase is Phase.IDLE:
                    self._start()
            case Resumed():
                self._resume()
            case Spoken(mark):
                if mark and mark == state.speaking:
                    self._spoken(mark)
            case BargedIn():
                if state.speaking and state.phase in {*PHASES_WITH_QUESTION, Phase.HOLDING}:
                    mark = state.speaking
                    self._silence()
                    self._await(mark)
            case Pressed(digit):
                if state.phase in {*PHASES_WITH_QUESTION, Phase.HOLDING}:
                    self._pressed(digit)
            case Waited(mark):
                if mark and mark == state.waiting:
                    self._waited()
            case MachineAnswered(ready):
                self._machine(ready=ready)
            case DeafNow():
                self._deaf()
            case HungUp():
                machine = state.phase in _MACHINES or (bool(state.machine) and state.ending is None)
                self._finish(None if machine else state.ending or Ending.HUNG_UP, voicemail=machine)
            case _:
                if state.phase in _MACHINES:
                    self._overheard(event.text)
                elif state.phase is not Phase.IDLE:
                    self._heard(event.text, late=event.late)

    def _start(self) -> None:
        self._set(started_at=self.now)
        if self.state.machine:
            self._machine(ready=self.state.machine == "ready")
        else:
            self._set(phase=Phase.NAME)
            self._ask()

    def _resume(self) -> None:
        """Go on over a new media stream, from the last checkpoint."""
        state = self.state
        self._set(speaking="", waiting="", keys="", misses=0, asides=0)
        match state.phase:
            case Phase.IDLE:
                self._start()
            case Phase.MACHINE:
                self._await(self._mark("machine"))
            case Phase.VOICEMAIL:
                self._say("voicemail")
            case Phase.EMERGENCY:
                self._say("hello_again", "emergency")
            case Phase.CLOSING:
                self._say(state.closing, "goodbye")
            case _ if not state.confirmed:
                # Somebody else may have the telephone by now.
                self._set(phase=Phase.NAME)
                self._ask("hello_again")
            case _:
                if state.phase is Phase.HOLDING:
                    self._set(phase=state.back)
                self._ask("hello_again")

    def _spoken(self, mark: str) -> None:
        self._set(speaking="")
        match self.state.phase:
            case Phase.VOICEMAIL:
                self._finish(None, voicemail=True)
            case Phase.EMERGENCY:
                self._set(phase=Phase.CLOSING, closing="emergency")
                self._say("goodbye")
            case Phase.CLOSING:
                self._finish(self.state.ending)
            case _:
                self._await(mark)

    def _waited(self) -> None:
        self._set(waiting="")
        match self.state.phase:
            case Phase.MACHINE:
                self._leave_message()
            case Phase.HOLDING:
                self._return_from_hold()
            case _ if self.state.keys:
                self._submit_keys()
            case _:
                self._miss()

    def _machine(self, *, ready: bool) -> None:
        """A machine took the call. After somebody said to be the patient it is the detection that is wrong."""
        phase = self.state.phase
        if phase is Phase.IDLE and self.state.started_at is None:
            self._set(machine="ready" if ready else self.state.machine or "machine")
        elif phase not in {Phase.IDLE, Phase.MACHINE, *_STRANGERS} or self.state.confirmed:
            return
        elif ready:
            self._leave_message()
        elif phase is not Phase.MACHINE:
            self._silence()
            self._set(phase=Phase.MACHINE)
            self._await(self._mark("machine"))

    def _leave_message(self) -> None:
        self._set(phase=Phase.VOICEMAIL)
        self._say("voicemail")

    def _deaf(self) -> None:
        if self.state.deaf:
            return
        self._set(deaf=True)
        if self.state.phase in PHASES_WITH_QUESTION:
            self._ask()

    # --- what was heard ----------------------------------------------------------------------------------------

    def _heard(self, text: str, *, late: bool) -> None:
        state = self.state
        if self._is_echo(text):
            return
        if not text.strip():
            # Something was said and nothing recognised. While keys are being pressed it was only noise.
            if state.waiting and state.phase in PHASES_WITH_QUESTION and not (late or state.keys):
                self._miss()
            return
        question = state.question()
        understood = understand(
            text,
            state.language,
            question.kind if question else QuestionKind.YES_NO,
            symptoms=state.context.watch.symptoms,
            also_yes=self._ways_to_say_yes(question),
            also_no=question.also_no[state.language] if question else (),
        )
        self._turn("patient", text)
        critical = affirmed(understood.mentions, Level.CRITICAL)
        if critical:
            if understood.intent is Intent.OPT_OUT:
                self._mark_opted_out()
            self._note_symptoms(critical)
            self._escalate(critical)
            return
        if state.phase in {Phase.EMERGENCY, Phase.CLOSING}:
            self._heard_while_closing(understood.intent)
            return
        warnings = self._warn(understood, question)
        if self._wish(understood, question, late=late):
            return
        if self.state.speaking or late:
            return  # late words about an earlier question: without a barge-in they answer nothing
        if state.phase is Phase.HOLDING:
            self._return_from_hold()
        else:
            self._answered(understood, warnings=warnings, text=text)

    def _overheard(self, text: str) -> None:
        """Words to what was taken for a machine: detection may be wrong, and a red flag counts all the same.

        Greetings themselves say "in an emergency call 911", so that phrase alone is not one.
        """
        understood = understand(
            text, self.state.language, QuestionKind.YES_NO, symptoms=self.state.context.watch.symptoms
        )
        critical = tuple(
            code for code in affirmed(understood.mentions, Level.CRITICAL) if code != "emergency"
        )
        if critical:
            self._turn("patient", text)
            self._note_symptoms(critical)
            self._escalate(critical)

    def _ways_to_say_yes(self, question: Question | None) -> tuple[str, ...]:
        if question is None:
            return ()
        own = question.also_yes[self.state.language]
        if self.state.phase is not Phase.NAME:
            return own
        name = plain(self.state.context.patient.given_name)
        return (
            *own,
            *(f"{opening} {name}" for opening in ("this is", "it's", "i'm", "i am", "soy", "habla")),
        )

    def _is_echo(self, given: str) -> bool:
        state = self.state
        echo = (
            given == state.last_input
            and state.last_input_at is not None
            and self.now - state.last_input_at < ECHO
        )
        if not echo:
            self._set(last_input=given, last_input_at=self.now)
        return echo

    def _warn(self, understood: Understood, question: Question | None) -> bool:
        """Raise what is worth a nurse's look in any speech; whether there was anything."""
        if question and question.kind is QuestionKind.NUMBER and understood.meaning is Meaning.NUMBER:
            return False  # "my pain is a two": the number's own rules judge it
        codes = affirmed(understood.mentions, Level.WARNING)
        self._note_symptoms(codes)
        raised = [self._raise(AlertKind.WARNING, code) for code in codes]
        if any(raised):
            self._save()
        return bool(codes)

    def _heard_while_closing(self, intent: Intent | None) -> None:
        if intent is Intent.OPT_OUT and not self.state.opted_out_number:
            self._mark_opted_out()
            if self.state.phase is Phase.CLOSING and self.state.ending is not Ending.ESCALATED:
                ending = Ending.OPTED_OUT if self.state.ending in _RETRIED else self.state.ending
                self._close(ending or Ending.OPTED_OUT, "closing_opted_out")
            else:
                self._save()
        elif intent is Intent.PERSON and self._raise(AlertKind.CALLBACK, "person"):
            self._save()

    def _wish(self, understood: Understood, question: Question | None, *, late: bool) -> bool:
        """Follow a wish that outranks the question; whether there was one."""
        intent, state = understood.intent, self.state
        if intent is None or ((state.speaking or late) and intent not in _INTRUSIVE):
            return False
        if question and question.kind is QuestionKind.FREE and intent in _FREE_WORDS:
            return False  # where free words were asked for, "call me later" is a message to the nurse
        answered = understood.meaning in {Meaning.YES, Meaning.NO, Meaning.NUMBER}
        match intent:
            case Intent.OPT_OUT:
                self._opt_out()
            case Intent.WRONG_PERSON:
                self._close(Ending.WRONG_PERSON, "closing_wrong_person")
            case Intent.PERSON:
                self._call_back()
            case Intent.SPANISH | Intent.ENGLISH:
                return self._speak("es" if intent is Intent.SPANISH else "en")
            case Intent.CALL_LATER:
                self._close(Ending.CALL_LATER, "closing_call_later")
            case Intent.DECLINE:
                self._close(Ending.DECLINED, "closing_declined")
            case Intent.NOT_HERE if not state.confirmed:
                self._close(Ending.CALL_LATER, "closing_call_later")
            case Intent.MACHINE if state.phase in _STRANGERS:
                self._machine(ready=False)
            case _ if answered or state.phase is Phase.HOLDING:
                return False
            case Intent.HOLD:
                self._hold()
            case Intent.WHO:
                self._aside("who" if state.confirmed else "who_before")
            case Intent.REPEAT | Intent.HELLO:
                self._aside()
            case Intent.GOODBYE:
                self._close(Ending.DECLINED, "closing_declined")
            case _:
                return False
        return True

    def _answered(self, understood: Understood, *, warnings: bool, text: str) -> None:
        meaning = understood.meaning
        match self.state.phase:
            case Phase.NAME | Phase.AVAILABLE | Phase.STOP if meaning in {Meaning.YES, Meaning.NO}:
                self._frame_answer(yes=meaning is Meaning.YES)
            case Phase.YEAR if understood.years == {self._birth_year()}:
                self._confirm()
            case Phase.ASKING:
                self._script_answer(understood, warnings=warnings, text=text)
            case _:
                self._miss()

    def _script_answer(self, understood: Understood, *, warnings: bool, text: str) -> None:
        question, meaning = self._question(), understood.meaning
        denials = bool(understood.mentions) and all(mention.denied for mention in understood.mentions)
        if question.about_symptoms and warnings:
            meaning = Meaning.YES  # "no, but my ankles are swollen"
        elif question.about_symptoms and denials and meaning is Meaning.NOTHING:
            meaning = Meaning.NO
        if question.kind is QuestionKind.NUMBER:
            none = denials or meaning is Meaning.NO
            value = Decimal(0) if none and understood.number is None else understood.number
            if value is not None and question.minimum <= value <= question.maximum:
                self._record(f"{value.normalize():f}", text)
                return
        elif meaning is Meaning.WORDS:
            self._record(understood.words[:KEEP], text, key="words")
            return
        elif meaning in {Meaning.YES, Meaning.NO}:
            if question.kind is QuestionKind.FREE and meaning is Meaning.YES and self.state.misses == 0:
                self._miss()  # "yes" to "anything else?": the second wording asks what
            else:
                self._record(meaning.value, text, warned=warnings)
            return
        self._miss(unsure=meaning is Meaning.UNSURE)

    # --- the keypad --------------------------------------------------------------------------------------------

    def _pressed(self, digit: str) -> None:
        state = self.state
        if state.phase is Phase.HOLDING:
            self._return_from_hold()
            return
        question = self._question()
        keyed_number = question.kind in {QuestionKind.NUMBER, QuestionKind.YEAR}
        if not keyed_number and self._is_echo(f"key {digit}"):
            return
        self._turn("patient", digit, via="keypad")
        if digit == "*" and state.phase is not Phase.STOP:
            self._set(back=state.phase, phase=Phase.STOP, misses=0, keys="")
            self._ask()
        elif keyed_number:
            self._keyed(digit, question)
        elif digit in "12" and state.phase is Phase.ASKING:
            self._record("yes" if digit == "1" else "no", digit)
        elif digit in "12":
            self._frame_answer(yes=digit == "1")
        elif digit == "3" and state.phase is Phase.AVAILABLE:
            self._close(Ending.WRONG_PERSON, "closing_wrong_person")
        elif digit == "8":
            self._speak("en" if state.language == "es" else "es")
        elif digit == "9":
            self._aside()
        elif digit == "0":
            self._call_back()
        else:
            self._miss()

    def _keyed(self, digit: str, question: Question) -> None:
        """Digits of a number: complete when no further one fits, at "#", or after a pause."""
        keys = self.state.keys + (digit if digit.isdigit() else "")
        self._set(keys=keys)
        if question.kind is QuestionKind.YEAR:
            full = len(keys) == 4
        else:
            full = bool(keys) and (
                int(keys) * 10 > question.maximum or len(keys) >= len(str(int(question.maximum)))
            )
        if digit == "#" or full:
            self._submit_keys()
        else:
            self._silence()
            self._await(self._mark("keys"), seconds=self.state.context.script.waits.keys)

    def _submit_keys(self) -> None:
        keys, question = self.state.keys, self._question()
        self._set(keys="")
        if self.state.phase is Phase.YEAR:
            if keys == str(self._birth_year()):
                self._confirm()
            else:
                self._miss()
        elif keys and question.minimum <= Decimal(keys) <= question.maximum:
            self._record(str(int(keys)), keys)
        else:
            self._miss()
