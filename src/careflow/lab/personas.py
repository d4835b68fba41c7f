"""Who holds the telephones: simulated patients, each with a persona that decides how they answer. Pure and seeded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from careflow.errors import CareflowError
from careflow.lab.handset import Act, HangUp, Press, Speak
from careflow.lab.questions import Prompt, Topic, understand


class BadSubscriber(CareflowError):
    """The subscriber is not usable."""


class Persona(StrEnum):
    """How a number behaves when it is called."""

    WELL = "well"  # answers everything, and well
    FORGOT_MEDICINE = "forgot-medicine"  # did not take it
    RED_FLAG = "red-flag"  # says yes to the symptoms that need help at once
    CONFUSED = "confused"  # wanders off, then is unsure, then answers
    HARD_TO_UNDERSTAND = "hard-to-understand"  # slurs; uses the keys when they are offered
    KEYPAD_ONLY = "keypad-only"  # never speaks; presses keys when they are offered
    NOT_ANSWERING = "not-answering"  # rings until the caller gives up
    BUSY = "busy"
    VOICEMAIL = "voicemail"  # a machine with a greeting and a tone
    INVALID_NUMBER = "invalid-number"  # the network knows no such number
    WRONG_PERSON = "wrong-person"  # is somebody else
    HANGS_UP = "hangs-up"  # in the middle
    OPTS_OUT = "opts-out"  # wants no more calls
    ASKS_BACK = "asks-back"  # asks for everything to be said again, then answers
    SPANISH = "spanish"  # well, and speaks Spanish only
    CALL_LATER = "call-later"  # has no time now


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A number and who has it.

    `language` is "en" or "es". `answers` replaces what is said on a topic (`Topic` value -> words). Calls before the
    `answers_on_attempt`th to the number are not answered. `seed` decides what the persona leaves to chance.
    """

    phone: str
    persona: Persona
    given_name: str
    birth_year: int
    language: str = "en"
    seed: int = 0
    answers: Mapping[str, str] = field(default_factory=dict)
    answers_on_attempt: int = 1

    def to_json(self) -> dict[str, object]:
        return {
            "phone": self.phone,
            "persona": self.persona.value,
            "givenName": self.given_name,
            "birthYear": self.birth_year,
            "language": self.language,
            "seed": self.seed,
            "answers": dict(self.answers),
            "answersOnAttempt": self.answers_on_attempt,
        }

    @classmethod
    def from_json(cls, document: object) -> Subscriber:
        """The subscriber of a JSON object as `to_json` makes it. Raises BadSubscriber, which names the field."""
        if not isinstance(document, Mapping):
            raise BadSubscriber("a subscriber must be a JSON object")
        known = {
            "phone",
            "persona",
            "givenName",
            "birthYear",
            "language",
            "seed",
            "answers",
            "answersOnAttempt",
        }
        for name in document:
            if name not in known:
                raise BadSubscriber(f"{name!r} is not one of {', '.join(sorted(known))}")
        persona = document.get("persona")
        if persona not in list(Persona):
            raise BadSubscriber(f"persona {persona!r} is not one of {', '.join(Persona)}")
        language = document.get("language", "en")
        if language not in ("en", "es"):
            raise BadSubscriber(f"language {language!r} is not one of en, es")
        answers = document.get("answers", {})
        topics = [topic.value for topic in Topic]
        if not isinstance(answers, Mapping) or not all(
            name in topics and isinstance(text, str) for name, text in answers.items()
        ):
            raise BadSubscriber(f"answers must map one of {', '.join(topics)} to words")
        return cls(
            phone=_text(document, "phone"),
            persona=Persona(persona),
            given_name=_text(document, "givenName"),
            birth_year=_number(document, "birthYear", None, 1800),
            language=language,
            seed=_number(document, "seed", 0, 0),
            answers=dict(answers),
            answers_on_attempt=_number(document, "answersOnAttempt", 1, 1),
        )


def _text(document: Mapping[object, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise BadSubscriber(f"{name} is {value!r}: a text is accepted")
    return value


def _number(document: Mapping[object, object], name: str, default: int | None, lowest: int) -> int:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise BadSubscriber(f"{name} is {value!r}: a whole number from {lowest} is accepted")
    return value


_WELL: dict[str, dict[Topic, tuple[str, ...]]] = {
    "en": {
        Topic.IDENTITY: ("Yes.", "Yes, this is {name}.", "Yes, speaking."),
        Topic.BIRTH_YEAR: ("{year}.", "I was born in {year}."),
        Topic.AVAILABLE: ("Yes.", "Yes, one moment."),
        Topic.GOOD_TIME: ("Yes, that is fine.", "Sure."),
        Topic.CONFIRM: ("Yes.", "Yes, that is right."),
        Topic.PAIN: ("One.", "Two.", "Zero."),
        Topic.MEDICINE: ("Yes, I took it.", "Yes.", "Yes, I did."),
        Topic.CRITICAL: ("No.", "No, nothing like that."),
        Topic.FEELING: ("I feel fine.", "Better, thank you.", "Good."),
        Topic.OPEN: ("No, thank you.", "No."),
        Topic.SYMPTOM: ("No.", "No, I do not.", "No, nothing."),
        Topic.GENERIC: ("Yes.",),
        Topic.EMERGENCY: ("Okay, I will.",),
        Topic.GOODBYE: ("Goodbye.", "Thank you, bye."),
    },
    "es": {
        Topic.IDENTITY: ("Sí.", "Sí, soy {name}.", "Sí, soy yo."),
        Topic.BIRTH_YEAR: ("{year}.", "Nací en {year}."),
        Topic.AVAILABLE: ("Sí.", "Sí, un momento."),
        Topic.GOOD_TIME: ("Sí, está bien.", "Sí, claro."),
        Topic.CONFIRM: ("Sí.", "Sí, es correcto."),
        Topic.PAIN: ("Uno.", "Dos.", "Cero."),
        Topic.MEDICINE: ("Sí, la tomé.", "Sí."),
        Topic.CRITICAL: ("No.", "No, nada de eso."),
        Topic.FEELING: ("Me siento bien.", "Mejor, gracias.", "Bien."),
        Topic.OPEN: ("No, gracias.", "No."),
        Topic.SYMPTOM: ("No.", "No, nada."),
        Topic.GENERIC: ("Sí.",),
        Topic.EMERGENCY: ("Está bien, lo haré.",),
        Topic.GOODBYE: ("Adiós.", "Gracias, adiós."),
    },
}
_OTHER: dict[Persona, dict[str, dict[Topic, tuple[str, ...]]]] = {
    Persona.FORGOT_MEDICINE: {
        "en": {Topic.MEDICINE: ("No, I forgot.", "No, I have not taken it.")},
        "es": {Topic.MEDICINE: ("No, se me olvidó.", "No, no la he tomado.")},
    },
    Persona.RED_FLAG: {
        "en": {
            Topic.CRITICAL: ("Yes, I do.", "Yes, I have had that since this morning."),
            Topic.FEELING: ("Not good. I have chest pain.",),
            Topic.OPEN: ("Yes, I have chest pain.",),
            Topic.SYMPTOM: ("Yes.",),
            Topic.PAIN: ("Nine.",),
        },
        "es": {
            Topic.CRITICAL: ("Sí.", "Sí, desde esta mañana."),
            Topic.FEELING: ("Mal. Tengo dolor de pecho.",),
            Topic.OPEN: ("Sí, tengo dolor de pecho.",),
            Topic.SYMPTOM: ("Sí.",),
            Topic.PAIN: ("Nueve.",),
        },
    },
    Persona.WRONG_PERSON: {
        "en": {
            Topic.IDENTITY: ("No, you have the wrong number.", "No, wrong number."),
            Topic.AVAILABLE: ("Wrong number.",),
        },
        "es": {
            Topic.IDENTITY: ("No, tiene el número equivocado.", "No, número equivocado."),
            Topic.AVAILABLE: ("Número equivocado.",),
        },
    },
}
_PHRASES = {
    "en": {
        "hello": ("Hello?",),
        "wander": ("Well, my daughter was here yesterday with the dog.", "What a nice voice you have."),
        "unsure": ("I am not sure.", "I do not know."),
        "again": ("Can you say that again?", "What did you ask me?", "Sorry, can you repeat that?"),
        "later": ("Can you call me later? I am busy now.", "Please call me back later."),
        "stop": ("Please stop calling me.", "Do not call me again."),
        "foreign": ("I do not understand. English, please.",),
    },
    "es": {
        "hello": ("¿Hola?",),
        "wander": ("Pues mi hija estuvo aquí ayer con el perro.", "Qué voz tan bonita tiene."),
        "unsure": ("No estoy seguro.", "No lo sé."),
        "again": ("¿Puede repetirlo?", "¿Qué me preguntó?"),
        "later": ("¿Puede llamarme más tarde? Ahora estoy ocupado.",),
        "stop": ("Por favor no me llame más.", "Deje de llamarme."),
        "foreign": ("No hablo inglés. En español, por favor.",),
    },
}
_NUMBERS = {
    "cero": "0", "uno": "1", "dos": "2", "tres": "3", "cuatro": "4", "cinco": "5",
    "seis": "6", "siete": "7", "ocho": "8", "nueve": "9", "diez": "10",
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_SPOKEN_FOR = frozenset({Topic.EMERGENCY, Topic.GOODBYE})


class Patient:
    """The mind of a subscriber in one call (`handset.Mind`)."""

    def __init__(self, subscriber: Subscriber, rng: Random) -> None:
        self._who = subscriber
        self._rng = rng
        self._language = "es" if subscriber.persona is Persona.SPANISH else subscriber.language
        self._asked: dict[Topic, int] = {}
        self._questions = 0
        self._patience = rng.randint(1, 3)  # questions until HANGS_UP does
        self._stop_at_once = rng.random() < 0.5  # whether OPTS_OUT says so before identifying themselves
        self._impatient = subscriber.persona is Persona.WELL and rng.random() < 0.25

    def react(self, heard: str) -> Sequence[Act]:
        prompt = understand(heard)
        if prompt is None:
            return []
        if prompt.topic is Topic.GOODBYE:
            return self._goodbye()
        if self._language == "es" and not prompt.spanish:
            return [Speak("Español.")] if prompt.offers_spanish else self._say("foreign")
        times = self._asked[prompt.topic] = self._asked.get(prompt.topic, 0) + 1
        self._questions += prompt.topic is not Topic.EMERGENCY
        match self._who.persona:
            case Persona.HANGS_UP if self._questions > self._patience:
                return [HangUp(0.3)]
            case Persona.OPTS_OUT if (
                prompt.topic not in (Topic.IDENTITY, Topic.BIRTH_YEAR) or self._stop_at_once
            ):
                return self._say("stop")
            case Persona.CALL_LATER if prompt.topic not in _SPOKEN_FOR:
                return self._say("later")
            case Persona.ASKS_BACK if times == 1 and prompt.topic not in (*_SPOKEN_FOR, Topic.IDENTITY):
                return self._say("again")
            case Persona.CONFUSED if times <= 2 and prompt.topic not in (
                *_SPOKEN_FOR,
                Topic.IDENTITY,
                Topic.BIRTH_YEAR,
            ):
                return self._say("wander" if times == 1 else "unsure")
            case Persona.KEYPAD_ONLY:
                return self._keys(prompt) if prompt.keypad else []
            case Persona.HARD_TO_UNDERSTAND if prompt.keypad:
                return self._keys(prompt)
            case Persona.HARD_TO_UNDERSTAND:
                return [Speak(self._answer(prompt.topic), unclear=True)]
            case _:
                return [Speak(self._answer(prompt.topic))]

    def interrupts(self, heard: str) -> bool:
        """Impatient people answer once, as soon as the question is out; who hangs up does so in the middle."""
        question = "?" in heard
        if self._who.persona is Persona.HANGS_UP:
            return question and self._questions >= self._patience
        if self._impatient and question and self._questions >= 2:
            self._impatient = False
            return True
        return False

    def silence(self, times: int) -> Sequence[Act]:
        if self._who.persona is Persona.KEYPAD_ONLY:
            return [HangUp()] if times >= 6 else []
        return self._say("hello") if times <= 3 else [HangUp()]

    def _goodbye(self) -> Sequence[Act]:
        # The agent should hang up first, when its goodbye was played; a person waits a moment for that.
        last = HangUp(8.0)
        if self._who.persona is Persona.KEYPAD_ONLY:
            return [last]
        return [Speak(self._answer(Topic.GOODBYE)), last]

    def _say(self, phrase: str) -> Sequence[Act]:
        return [Speak(self._rng.choice(_PHRASES[self._language][phrase]))]

    def _answer(self, topic: Topic) -> str:
        if topic in self._who.answers:
            return self._who.answers[topic]
        own = _OTHER.get(self._who.persona, {}).get(self._language, {})
        text = self._rng.choice(own.get(topic) or _WELL[self._language][topic])
        return text.format(name=self._who.given_name, year=self._who.birth_year)

    def _keys(self, prompt: Prompt) -> Sequence[Act]:
        answer = self._answer(prompt.topic)
        if prompt.topic is Topic.BIRTH_YEAR:
            return [Press(str(self._who.birth_year))]
        if prompt.topic is Topic.PAIN:
            word = answer.strip(" .").lower()
            number = _NUMBERS.get(word, word if word.isdecimal() else "1")
            return [Press(number + "#" if prompt.pound else number)]
        if prompt.topic in _SPOKEN_FOR:
            return []
        no = re.match(r"no\b", answer.lower()) is not None
        return [Press(prompt.no_key if no else prompt.yes_key)]
