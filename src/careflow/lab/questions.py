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
    AVAILABLE = "available"  # can they come to the telephone?
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
    """A prompt as understood. `keypad`: keys are offered, `yes_key` and `no_key` for these answers; `pound`: # ends a number."""

    topic: Topic
    keypad: bool
    yes_key: str
    no_key: str
    pound: bool
    spanish: bool
    offers_spanish: bool


# In order: the first that matches the question decides.
_QUESTIONS: tuple[tuple[Topic, str], ...] = (
    (Topic.BIRTH_YEAR, r"\byear\b|\bborn\b|\bbirth|\bano\b.*\bnaci|\bnacio\b|\bnacimiento\b"),
    (
        Topic.PAIN,
        r"\bscale\b|(0|zero)\b.*\b(10|ten)\b|(0|cero)\b.*\b(10|diez)\b|\bescala\b|how strong|que tan fuerte",
    ),
    (
        Topic.IDENTITY,
        r"(speaking|speak|talking|talk) (with|to)\b|\bis this\b|^if this is|habl(o|ando|ar) con|usted es\b|es usted\b",
    ),
    (Topic.AVAILABLE, r"come to the (tele)?phone|al telefono|is .* (there|available|at home)"),
    (
        Topic.CONFIRM,
        r"did you say|is that (right|correct)|did i (understand|hear)|es correcto|entendi bien|dijo que",
    ),
    (Topic.GOOD_TIME, r"good (time|moment)|(couple of) minutes|talk now|buen momento|unos minutos"),
    (
        Topic.OPEN,
        r"anything else|something else|few words|nurse to (call|know)|algo mas|otra cosa|pocas palabras|enfermera le llame",
    ),
    (
        Topic.SYMPTOM,
        r"noticed|ha notado|(trouble|problem)\w* with|give you .*trouble|causa\w* .*problema|problema con",
    ),
    (
        Topic.CRITICAL,
        r"any of these|algo de esto|chest|breath|faint|pass(ed)? out|stroke|numb|droop|pecho|respir|aliento|desmay|suicid|kill|"
        r"(do|if) you have\b|\btiene\b",
    ),
    (
        Topic.MEDICINE,
        r"medicin|medicat|\bpills?\b|\bdoses?\b|tablet|insulin|prescri|pastilla|medicament|\bdosis\b|receta",
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
    (Topic.GOODBYE, r"good ?bye|\bbye\b|adios|hasta (luego|pronto)|take care|cuidese"),
    (Topic.EMERGENCY, r"\b911\b|nine one one|nueve uno uno"),
)
_KEYS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "nine": "9",
    "cero": "0", "uno": "1", "dos": "2", "tres": "3", "nueve": "9",
}  # fmt: skip
_KEYPAD = re.compile(
    r"\b(press(ing)?|keypad|keys?|enter|type|dial|oprim[ae]|presion[ae]|marque|pulse|tecl\w*)\b"
)
_POUND = re.compile(r"\b(pound|hash)\b|#|\bgato\b|numeral")
_KEY = r"(?P<key>\d|" + "|".join(_KEYS) + r")"
_PRESS = r"(?:press|oprima|presione|marque|pulse)(?: (?:the|el|la))?(?: (?:key|number|numero|tecla))?"
_FOR = r"(?:for|if|para|si),? "
_OFFER = re.compile(r"\bfor english\b|\bpara espanol\b|\bfor spanish\b|\bpara ingles\b")
_ASKS = re.compile(
    r"please (say|tell|give|enter|key|press|answer)|tell me|diga|digame|por favor (de|marque|oprima|ingrese|responda)"
)
_SPANISH = re.compile(
    r"\b(usted|que|con|para|hola|gracias|favor|hoy|ano|esta|su|sus|es|de|el|la|los|las|tomo|como|tiene|adios|oprima|"
    r"si|le|del|hablo|algo|mas|nota\w*|digame|diga|espero|llama\w*)\b"
)
_ENGLISH = re.compile(
    r"\b(you|your|the|this|is|are|am|have|did|please|hello|thank|today|year|for|with|of|and|good|press|do|to|i|we|anything)\b"
)


def plain(text: str) -> str:
    """Lower case, no accents, single spaces; the inverted marks of Spanish are dropped."""
    folded = unicodedata.normalize("NFD", text.lower())
    kept = "".join(letter for letter in folded if not unicodedata.combining(letter) and letter not in "¿¡")
    return " ".join(kept.replace("’", "'").split())


def understand(heard: str) -> Prompt | None:
    """What the words ask for; None for a statement that wants no answer.

    The last question counts, or a goodbye after it. An offer of the other language is set apart (`offers_spanish`).
    """
    sentences = re.split(r"(?<=[.?!])\s", plain(heard))
    offers = [sentence for sentence in sentences if _OFFER.search(sentence)]
    rest = [sentence for sentence in sentences if sentence and sentence not in offers]
    last = next((place for place in reversed(range(len(rest))) if "?" in rest[place]), None)
    tail = " ".join(rest if last is None else rest[last:])
    topic = _topic(rest, last)
    if topic is None:
        return None
    return Prompt(
        topic=topic,
        keypad=_KEYPAD.search(tail) is not None,
        yes_key=_key(tail, r"(?:yes|si)\b") or "1",
        no_key=_key(tail, r"no\b") or "2",
        pound=_POUND.search(tail) is not None,
        spanish=len(_SPANISH.findall(tail)) > len(_ENGLISH.findall(tail)),
        offers_spanish=any("espanol" in offer for offer in offers),
    )


def _topic(sentences: list[str], last_question: int | None) -> Topic | None:
    after = " ".join(sentences if last_question is None else sentences[last_question + 1 :])
    for topic, pattern in _STATEMENTS:
        if re.search(pattern, after):
            return topic
    if last_question is not None:
        request = _question(after) if _ASKS.search(after) else None
        # "Please say yes or no" belongs to the question before it; a request for a number is one of its own.
        return request if request in (Topic.BIRTH_YEAR, Topic.PAIN) else _question(sentences[last_question])
    # A request without a question mark: "Please tell me the year you were born", "If you took it, press one".
    asking = " ".join(
        sentence for sentence in sentences if _ASKS.search(sentence) or _KEYPAD.search(sentence)
    )
    return _question(asking) if asking else None


def _question(words: str) -> Topic:
    return next((topic for topic, pattern in _QUESTIONS if re.search(pattern, words)), Topic.GENERIC)


def _key(words: str, meaning: str) -> str:
    """The key for an answer: "press 1 for yes" and "for yes, press 1" alike."""
    for pattern in (
        rf"{_PRESS} {_KEY},? {_FOR}{meaning}",
        rf"{_FOR}{meaning},? {_PRESS} {_KEY}",
        rf"\b{_KEY} {_FOR}{meaning}",
    ):
        found = re.search(pattern, words)
        if found:
            return _KEYS.get(found["key"], found["key"])
    return ""
