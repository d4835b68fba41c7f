"""What patients complain of, in their own words: the catalogue of symptoms, and finding them in speech.

A phrase is a row of words that must all occur close together, in any order; "a|b" are alternatives, "swell*" any
ending. A phrase with "=" in front must occur word for word. Both languages are searched in every call: in pain
people fall back on their first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from careflow.core.negation import CONTRAST, denied
from careflow.core.words import HESITATIONS, PUNCTUATION, Group, groups, tokens


class Level(StrEnum):
    """What a symptom means when a patient has it."""

    CRITICAL = "critical"  # red flag: a nurse is told while the patient is on the line
    WARNING = "warning"  # a nurse should look today


@dataclass(frozen=True, slots=True)
class Symptom:
    """`spoken` is its name in a prompt by language; `phrases` are the ways patients say it, in every language."""

    code: str
    level: Level
    spoken: Mapping[str, str]
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mention:
    """A symptom that was spoken of. `denied` only when the speaker clearly says not to have it."""

    code: str
    level: Level
    denied: bool


def _symptom(code: str, level: Level, en: str, es: str, *phrases: str) -> Symptom:
    return Symptom(code, level, {"en": en, "es": es}, phrases)


_C, _W = Level.CRITICAL, Level.WARNING

GENERAL: tuple[Symptom, ...] = (
    _symptom(
        "chest-pain", _C, "chest pain", "dolor en el pecho",
        "chest pain*|hurt*|ache*|aching|tight*|pressure|heav*|squeez*|burn*|crush*|discomfort|pressing|sore|stab*",
        "chest killing|bother*|elephant|weight|brick|sitting|funny|bad|wrong",
        "=heart attack", "heart hurts|pain|pains|hurting",
        "pecho dol*|duel*|apret*|aprieta|presion|opresion|pesad*|ard*|oprim*|molest*|punzad*",
        "=ataque al corazon", "=ataque cardiaco", "infarto", "corazon duele|dolor",
    ),
    _symptom(
        "breathing-trouble", _C, "trouble breathing", "dificultad para respirar",
        "breath* trouble*|difficult*|hard|harder|short|shortness|problem*|labored|struggl*|worse|heavy|tough",
        "=out of breath", "=can't|cannot|couldn't|can breathe|breath", "=can not breathe", "=not breathing",
        "=can't|cannot|couldn't hardly|barely|really|even breathe", "=barely|hardly breathe",
        "=can't|cannot|couldn't catch|get my breath", "=can't|cannot get|take enough|any|a air|breath",
        "=not able to breathe", "=unable to breathe", "=not breathing well|right|good", "suffocat*", "gasping",
        "choking", "winded", "wheez*",
        "respir* dificult*|cuesta|problema*|trabajo|mal|falta", "=no puedo|podia|pude respirar",
        "=no puedo casi respirar", "=casi no puedo respirar", "aire|aliento falt*", "=sin aliento|aire", "ahog*",
        "asfixi*",
    ),
    _symptom(
        "stroke-signs", _C, "sudden weakness on one side or trouble speaking",
        "debilidad repentina de un lado o dificultad para hablar",
        "face|mouth droop*|numb*|lopsided|crooked", "side|arm numb*|weak*|paraly*|droop*", "speech|words slur*",
        "slurred", "slurring", "=can't|cannot move my arm|leg|side|hand", "=can't|cannot speak|talk properly|clearly",
        "=can't|cannot see anything|clearly|straight|out|from", "=lost my vision|speech", "vision double|gone|half|sudden*",
        "=going|gone|went blind", "=no puedo ver", "vista perd*|doble|repentin*", "stroke having|think|like|symptom*",
        "headache worst|sudden|thunderclap",
        "cara|boca caid*|torcid*|dormid*|adormec*|chueca|entumec*|paraliz*",
        "brazo|lado dormid*|adormec*|debil*|entumec*|paraliz*", "hablar|habla|lengua arrastr*|trabad*|enred*",
        "=no puedo hablar bien|claro", "=no puedo mover el|la|mi", "derrame cerebral", "embolia",
    ),
    _symptom(
        "fainting", _C, "fainting", "desmayos",
        "faint*", "=passed|passing|pass out", "=blacked|blacking|black out", "=lost consciousness", "unconscious",
        "collapsed", "desmay*", "=perdi|perdido|pierdo el conocimiento|sentido", "desvanec*",
    ),
    _symptom(
        "severe-bleeding", _C, "heavy bleeding", "sangrado abundante",
        "bleeding lot|heav*|badly|bad|stop|severe*|much|everywhere|profuse*", "=won't stop bleeding",
        "blood vomit*|throw*|cough*|spit*|everywhere|pouring|gush*|puking", "hemorrhag*",
        "stool*|poop black|blood*|tarry", "sangr* mucho|mucha|para|parar|abundante|vomit*|tos|tosiendo|escup*",
        "hemorragia", "heces|popo negr*|sangre",
    ),
    _symptom(
        "suicidal-thoughts", _C, "thoughts of harming yourself", "pensamientos de hacerse daño",
        "=kill|killing|hurt|hurting|harm|harming myself", "suicid*", "=end|ending my life", "=end it all",
        "=don't want to live", "=don't want to be alive|here", "=want to die", "=want to be dead", "=wish i was|were dead",
        "=better off dead", "=no reason to live", "matarme", "=quitarme la vida", "=no quiero vivir",
        "=no quiero seguir viviendo|vivo|viva", "=quiero morir*|morirme", "=hacerme dano", "=mejor muerto|muerta",
    ),
    _symptom(
        "allergic-swelling", _C, "swelling of the face or throat", "hinchazón de la cara o la garganta",
        "face|tongue|lip|lips|throat swell*|swollen|puff*", "throat clos*|tight*", "anaphyla*",
        "cara|lengua|labio|labios|garganta hinch*|inflam*", "garganta cierr*|cerr*", "anafila*",
    ),
    _symptom("seizure", _C, "a seizure", "convulsiones", "seizure*", "convuls*", "=ataque epileptico|de epilepsia"),
    _symptom(
        "overdose", _C, "taking too much medicine", "tomar demasiada medicina",
        "overdos*", "=too many pills|tablets", "=all my|the pills at once", "=whole bottle",
        "sobredosis", "=demasiadas pastillas|pildoras", "=todo el frasco",
    ),
    _symptom(
        "emergency", _C, "an emergency", "una emergencia",
        "=need|call|get an ambulance", "=need|call|calling|called 911", "=nine one one", "=i'm dying",
        "=i am dying", "=need to go to the hospital|emergency", "=somebody|someone|please help me",
        "ambulancia", "=me estoy muriendo", "=me muero", "=llame|llamen|llamar al 911", "auxilio",
    ),
    _symptom(
        "swelling", _W, "swelling", "hinchazón",
        "swell*", "swollen", "=puffy ankles|feet|legs", "ankles|feet|legs puffy", "hinch*",
    ),
    _symptom(
        "weight-gain", _W, "sudden weight gain", "aumento repentino de peso",
        "weight gain*|up|more|put", "gained pounds|pound|kilos|lot", "=put on weight|pounds",
        "peso sub*|aument*|gan*", "=subi|subido|aumente|engorde de|dos|tres|cuatro|cinco",
    ),
    _symptom(
        "dizziness", _W, "dizziness", "mareos", "dizz*", "lightheaded", "=light headed", "=room spinning", "woozy",
        "vertigo", "mare*",
    ),
    _symptom("fever", _W, "a fever", "fiebre", "fever*", "chills", "temperature high|running", "fiebre", "escalofrio*",
             "calentura", "temperatura alta"),
    _symptom(
        "nausea", _W, "nausea or vomiting", "náuseas o vómitos",
        "nause*", "vomit*", "=throwing|threw|throw up", "puk*", "=sick to my stomach", "asco", "=ganas de vomitar|devolver",
    ),
    _symptom(
        "palpitations", _W, "a racing heartbeat", "palpitaciones",
        "heart|heartbeat racing|pounding|flutter*|skip*|irregular|fast", "palpit*", "corazon acelerad*|rapido|brinc*|salta*",
    ),
    _symptom("confusion", _W, "confusion", "confusión", "=feel|feeling|so|very|been confused", "disoriented",
             "=me siento confundid*", "=muy confundid*", "desorientad*"),
    _symptom("fall", _W, "a fall", "caidas", "=fell down|over|in|on|and|yesterday|last|this|again|out|at", "=had|took a fall",
             "=have|i've|had fallen", "=me cai|caigo|he caido", "=tuve una caida"),
    _symptom("bleeding", _W, "bleeding", "sangrado", "bleeding", "bled", "blood urine|nose|pee|gums|spot*", "sangrado",
             "sangrando", "sangre orina|nariz|encias"),
    _symptom("wound-problem", _W, "redness or discharge at a wound", "enrojecimiento o secreción de una herida",
             "wound|incision|stitches red*|pus|ooz*|infect*|open*|leak*|drain*", "pus",
             "herida|incision|puntos roj*|pus|infect*|abri*|supur*"),
    _symptom("fatigue", _W, "unusual tiredness", "cansancio", "exhaust*", "=very|so|really|too tired|weak|sleepy",
             "=no energy", "agotad*", "=muy cansad*|debil", "=sin fuerzas|energia"),
    _symptom("cough", _W, "a cough", "tos", "cough*", "tos", "tosiendo"),
    _symptom("rash", _W, "a rash", "sarpullido", "rash*", "hives", "itch*", "sarpullido", "ronchas", "comezon"),
    _symptom(
        "pain", _W, "pain", "dolor", "pain*", "hurts|hurt|hurting", "ache*", "aching", "sore", "headache*", "dolor*",
        "duele*", "adolorid*",
    ),
)  # fmt: skip

_REACH = 5  # how many further words may stand between those of one phrase


def by_code(symptoms: Iterable[Symptom] = GENERAL) -> dict[str, Symptom]:
    """The symptoms by their code."""
    return {symptom.code: symptom for symptom in symptoms}


def mentions(text: str, symptoms: Sequence[Symptom] = GENERAL) -> tuple[Mention, ...]:
    """Every symptom spoken of in `text`, in order of speech; the same code once affirmed and once denied counts as affirmed."""
    heard = tokens(text)
    found = _claims(heard, symptoms)
    verdicts: dict[str, Mention] = {}
    spans = [span for span, _ in found]
    refused = denied(heard, spans)
    for (_, symptom), no in zip(found, refused, strict=True):
        known = verdicts.get(symptom.code)
        if known is None or known.denied:
            verdicts[symptom.code] = Mention(symptom.code, symptom.level, no)
    return tuple(verdicts.values())


def _claims(heard: tuple[str, ...], symptoms: Sequence[Symptom]) -> list[tuple[tuple[int, ...], Symptom]]:
    """The places (matched token positions) of all mentions; a place belongs to the first, most serious symptom that claims it."""
    found: list[tuple[tuple[int, ...], Symptom]] = []
    taken: set[int] = set()
    for symptom in sorted(symptoms, key=lambda s: s.level is not Level.CRITICAL):
        own: set[int] = set()
        for phrase in symptom.phrases:
            for place in _places(heard, phrase):
                clash = taken if symptom.level is not Level.CRITICAL else own
                if clash.isdisjoint(place):
                    found.append((place, symptom))
                    own.update(place)
        taken |= own
    return sorted(found, key=lambda item: item[0])


def _places(heard: tuple[str, ...], phrase: str) -> Iterable[tuple[int, ...]]:
    exact = phrase.startswith("=")
    wanted = groups(phrase.removeprefix("="))
    if not all(any(map(group.matches, heard)) for group in wanted):
        return
    start = 0
    while start < len(heard):
        place = _exactly(heard, wanted, start) if exact else _nearby(heard, wanted, start)
        if place:
            # "no pain no chest pain": of the places that end here the tightest is meant.
            tighter = [] if exact else [_nearby(heard, wanted, n) for n in range(start + 1, place[-1] + 1)]
            place = min([place, *filter(None, tighter)], key=lambda p: p[-1] - p[0])
            yield place
            start = place[-1]
        start += 1


def _exactly(heard: tuple[str, ...], wanted: tuple[Group, ...], start: int) -> tuple[int, ...]:
    place: list[int] = []
    n = start
    for group in wanted:
        while place and n < len(heard) and (heard[n] in PUNCTUATION or heard[n] in HESITATIONS):
            n += 1
        if n >= len(heard) or not group.matches(heard[n]):
            return ()
        place.append(n)
        n += 1
    return tuple(place)


def _nearby(heard: tuple[str, ...], wanted: tuple[Group, ...], start: int) -> tuple[int, ...]:
    """Positions of one word of each group from `start` on, within reach and within the sentence."""
    if not any(group.matches(heard[start]) for group in wanted):
        return ()
    missing, place = list(wanted), []
    for n in range(start, min(len(heard), start + len(wanted) + _REACH)):
        # "My chest. It hurts." is one complaint: a transcript's full stop is no sure end of a sentence.
        if heard[n] in ".;!?" and heard[n + 1 : n + 2] not in (("it",), ("it's",), ("that",), ("me",)):
            break
        if heard[n] in CONTRAST:
            break
        found = next((group for group in missing if group.matches(heard[n])), None)
        if found is not None:
            missing.remove(found)
            place.append(n)
        if not missing:
            return tuple(place)
    return ()
