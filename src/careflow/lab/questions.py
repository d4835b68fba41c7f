"""What the agent wants to know, recognised by the words that a patient would recognise it by, in English and Spanish. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    """What a prompt is about, to somebody who only hears it."""

    IDENTITY = "identity"  # am I speaking with ...?
    BIRTH_YEAR = "birth-year"
    GOOD_TIME = "good-time"
    CONFIRM = "confirm"  # did I understand you?
    PAIN = "pain"  # a number from 0 to 10
    MEDICINE = "medicine"
    CRITICAL = "critical"  # chest pain, breath and the like
    FEELING = "feeling"
    OPEN = "open"  # anything else?
    SYMPTOM = "symptom"
    GENERIC = "generic"  # a question about something else
    EMERGENCY = "emergency"  # told to phone 911
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as understood: `yes_key` and `no_key` are "" when no keys are offered."""

    topic: Topic
    keypad: bool
    yes_key: str
    no_key: str
    spanish: bool


# In order: the first that matches the question decides.
_QUESTIONS: tuple[tuple[Topic, str], ...] = (
    (Topic.BIRTH_YEAR, r"\byear\b|\bborn\b|\bbirth|\bano\b.*\bnaci|\bnacio\b|\bnacimiento\b"),
    (Topic.PAIN, r"\bscale\b|(0|zero) (to|and) (10|ten)|(0|cero) (al?|y|hasta) (10|diez)|\bescala\b"),
    (
        Topic.IDENTITY,
        r"(speaking|speak|talking|talk) (with|to)\b|^\W*(hello\W+|hi\W+)?is this\b|hablo con|hablando con|hablar con|es usted\b",
    ),
    (
        Topic.CONFIRM,
        r"did you say|is that (right|correct)|did i (understand|hear)|es correcto|entendi bien|dijo que",
    ),
    (Topic.GOOD_TIME, r"good (time|moment)|(few|couple of) minutes|talk now|buen momento|unos minutos"),
    (
        Topic.OPEN,
        r"anything else|something else|any(thing)? (other|you would like)|algo mas|alguna otra cosa|otra cosa",
    ),
    (
        Topic.MEDICINE,
        r"medicin|medicat|\bpills?\b|\bdoses?\b|tablet|insulin|prescri|pastilla|medicament|\bdosis\b|receta",
    ),
    (
        Topic.CRITICAL,
        r"chest|breath|faint|pass(ed)? out|stroke|speech|numb|droop|pecho|respir|aliento|desmay|hablar|suicid|kill",
    ),
    (
        Topic.FEELING,
        r"how (are|do|have) you|how.*feel|feel(ing)? (better|well|today)|como (se siente|esta|se ha)|se siente (mejor|bien)",
    ),
    (
        Topic.SYMPTOM,
        r"\bany\b|pain|swell|fever|dizz|nausea|vomit|bleed|blood|weight|cough|tired|weak|worse|fall|fell|wound|redness|"
        r"trouble|problem|symptom|dolor|hincha|fiebre|mare|sangr|peso|\btos\b|cansa|debil|peor|caid|herida|problema|sintoma|algun",
    ),
)
_STATEMENTS: tuple[tuple[Topic, str], ...] = (
    (Topic.EMERGENCY, r"\b911\b|nine one one|nueve uno uno"),
    (Topic.GOODBYE, r"good ?bye|\bbye\b|adios|hasta (luego|pronto)|take care|cuidese|que (tenga|pase)"),
)
_KEYS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "nine": "9", "cero": "0", "uno": "1", "dos": "2", "tres": "3", "nueve": "9",
}  # fmt: skip
_KEYPAD = re.compile(
    r"\b(press(ing)?|keypad|keys?|enter|type|dial|oprim[ae]|presion[ae]|marque|pulse|tecl\w*)\b"
)
_KEY = r"(?P<key>\d|" + "|".join(_KEYS) + r")"
_PRESS = r"(?:press|oprima|presione|marque|pulse)(?: (?:the|el|la))?(?: (?:key|number|numero|tecla))?"
_FOR = r"(?:for|if|para|si)\W+(?:(?:the answer|it|la respuesta) (?:is|es)\W+)?"
_SPANISH = re.compile(
    r"\b(usted|que|con|para|hola|gracias|por favor|hoy|ano|esta|su|es|de|el|la|los|tomo|como|tiene|adios|oprima|si|buenos|le|del)\b"
)
_ENGLISH = re.compile(
    r"\b(you|your|the|this|is|are|have|did|please|hello|thank|today|year|for|with|of|and|good|press|do|to|i|we)\b"
)


def plain(text: str) -> str:
    """Lower case, no accents, single spaces; the inverted marks of Spanish are dropped."""
    folded = unicodedata.normalize("NFD", text.lower())
    kept = "".join(letter for letter in folded if not unicodedata.combining(letter) and letter not in "¿¡")
    return " ".join(kept.replace("’", "'").split())


def understand(heard: str) -> Prompt | None:
    """What the words ask for; None for a statement that wants no answer. The last question counts, and a goodbye after it."""
    words = plain(heard)
    if not words:
        return None
    topic = _topic(words)
    if topic is None:
        return None
    return Prompt(
        topic=topic,
        keypad=_KEYPAD.search(words) is not None,
        yes_key=_key(words, r"(?:yes|si)\b") or "1",
        no_key=_key(words, r"no\b") or "2",
        spanish=len(_SPANISH.findall(words)) > len(_ENGLISH.findall(words)),
    )


def _topic(words: str) -> Topic | None:
    question, mark, rest = words.rpartition("?")
    if mark:
        for topic, pattern in _STATEMENTS:
            if re.search(pattern, rest):
                return topic
        question = re.split(r"[.?!]\s", question.strip())[-1]
        return next((topic for topic, pattern in _QUESTIONS if re.search(pattern, question)), Topic.GENERIC)
    for topic, pattern in _STATEMENTS:
        if re.search(pattern, words):
            return topic
    # A request without a question mark: "Please say the year you were born", or a question that lost its end.
    asks = re.search(
        r"please (say|tell|enter|key|press|answer)|tell me|diga|digame|por favor (marque|oprima|ingrese|responda)",
        words,
    )
    if asks or _KEYPAD.search(words):
        return next((topic for topic, pattern in _QUESTIONS if re.search(pattern, words)), Topic.GENERIC)
    return None


def _key(words: str, meaning: str) -> str:
    """The key for an answer: "press 1 for yes" and "for yes, press 1" alike."""
    for pattern in (
        rf"{_PRESS} {_KEY}\W+{_FOR}{meaning}",
        rf"{_FOR}{meaning}\W+{_PRESS} {_KEY}",
        rf"\b{_KEY}\W+{_FOR}{meaning}",
    ):
        found = re.search(pattern, words)
        if found:
            return _KEYS.get(found["key"], found["key"])
    return ""
