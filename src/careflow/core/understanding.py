# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""What heard words mean: an answer to the question asked, or a wish that outranks it. English and Spanish, no guessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from careflow.core.numbers_spoken import number, years
from careflow.core.script import QuestionKind
from careflow.core.symptoms import GENERAL, Mention, Symptom, mentions
from careflow.core.words import FILLERS, PUNCTUATION, contains, find, tokens, words


class Meaning(StrEnum):
    """What an utterance says to the question."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"  # the speaker does not know
    NUMBER = "number"
    WORDS = "words"  # free words where free words were asked for
    NOTHING = "nothing"  # silence, noise, contradiction, or words that answer something else


class Intent(StrEnum):
    """What a speaker wants instead of answering; earlier ones outrank later ones."""

    OPT_OUT = "opt-out"  # never phone again
    WRONG_PERSON = "wrong-person"  # the number is not the patient's
    PERSON = "person"  # wants to talk to a human being
    SPANISH = "spanish"
    ENGLISH = "english"
    HOLD = "hold"  # wait a moment
    NOT_HERE = "not-here"  # the patient is out
    CALL_LATER = "call-later"
    DECLINE = "decline"  # will not talk today
    MACHINE = "machine"  # the words of an answering machine
    WHO = "who"  # who is calling, what about, why do you ask
    REPEAT = "repeat"
    GOODBYE = "goodbye"
    HELLO = "hello"


@dataclass(frozen=True, slots=True)
class Understood:
    """What was understood.

    `mentions` are all symptoms spoken of; they count whatever `intent` and `meaning` say. `words` is what was said, cleaned.
    """

    meaning: Meaning
    number: Decimal | None = None
    years: frozenset[int] = frozenset()
    intent: Intent | None = None
    mentions: tuple[Mention, ...] = ()
    words: str = ""


_INTENTS: Mapping[Intent, str] = {
    Intent.OPT_OUT: (
        "stop calling|calls|phoning; stop these|the|this calls; quit calling; don't|never call|phone|ring "
        "me|us|here|this|again; "
        "do not call|phone|ring; don't ever call; never call; take me|us|my off; remove me|us|my; unsubscribe; "
        "off your|the|this list; don't want these|the|any|your more|calls; don't want any more calls; no more calls; "
        "leave me alone; don't want you to|calling call|me; "
        "deje|dejen de llamar*; no me llame* mas|nunca; no me vuelva|vuelvan a llamar*; no vuelva|vuelvan a llamar*; "
        "no llame* mas; no quiero mas llamadas; no quiero que me llame*; quite*|quiteme|saque*|borre* de la|su "
        "lista; no mas llamadas; "
        "no me llame|llamen; no quiero estas llamadas"
    ),
    Intent.WRONG_PERSON: (
        "wrong number|person|house; nobody|no one by|named|called|with that|here; no one here by|named|called|with; "
        "nobody here by|named|called|with; there's|is no one|nobody by|named|called; no such person; don't know "
        "any|anyone|anybody; "
        "don't know who that|she|he is; never heard of; this isn't|is not his|her|their number|phone; "
        "doesn't|don't live here; numero equivocado; equivocado de numero; esta equivocad*; se equivoco de; aqui "
        "no vive; "
        "no vive aqui; no hay nadie con|que|llamad*; aqui no hay ningun*; no conozco a; persona equivocada; no es "
        "su numero"
    ),
    Intent.PERSON: (
        "talk|speak to|with a|an|the|my|some|somebody|someone "
        "nurse|doctor|person|human|operator|representative|one|real|live; "
        "talk|speak to|with somebody|someone; real person; human being; nurse call|phone me; get me a "
        "nurse|doctor|person; "
        "want|need a nurse|doctor|person; have a|the|my nurse|doctor call; "
        "hablar con una|un|la|el|alguien|algun|mi; persona de verdad; persona real; "
        "que me llame una|la|el|un enfermera|doctor|medico; quiero|necesito una|un enfermera|doctor|medico"
    ),
    Intent.SPANISH: "spanish; espanol; espaol; no hablo ingles; no ingles; no entiendo ingles",
    Intent.ENGLISH: "english; en ingles; in english; no hablo espanol",
    Intent.HOLD: (
        "hold on; hang on; one|a|just moment|second|minute|sec; just a moment|second|minute|sec; let me get|find "
        "him|her|my|the|them; "
        "i'll get|go him|her|get; wait a moment|second|minute; un momento|momentito|segundo|minuto; "
        "espere|esperese|permitame; "
        "ya se lo|la paso; dejeme buscar*"
    ),
    Intent.NOT_HERE: (
        "not|isn't home|here|available|around; not at home; he's|she's out|sleeping|asleep|gone|away|resting; "
        "is asleep|sleeping; is out right|now; at work; no esta aqui|en|disponible|ahorita|ahora|ella|el; el|ella "
        "no esta; "
        "salio; esta dormid*; anda fuera"
    ),
    Intent.CALL_LATER: (
        "call|phone|ring me|us|back|again later|back|tomorrow|tonight|another|some|in; call later|back|tomorrow; "
        "call|try again later; call back; try later|again; i'm|am busy|driving; in the middle of; having "
        "dinner|breakfast|lunch; busy right|now|at; "
        "not a good|great|convenient time|moment; bad time; can't|cannot talk|speak right|now|at|this; "
        "llame|llamame|llameme|llamar* mas tarde|despues; llame*|vuelva luego|despues|manana; estoy ocupad*; "
        "estoy manejando; ahora|ahorita no puedo; no puedo hablar ahora|ahorita; no es buen momento; en otro momento"
    ),
    Intent.DECLINE: (
        "not interested; don't want to talk|do|answer|speak; do not want to talk|do|answer|speak; won't|refuse "
        "answer|to; "
        "none of your business; rather not; no quiero hablar|contestar|responder; no me interesa; no deseo"
    ),
    Intent.MACHINE: (
        "after the tone|beep; leave a message at|after|and; leave your name|message; mailbox; voicemail; voice mail; "
        "can't|cannot come|take|answer to|your|the phone|call; not available to take; at the tone|beep; "
        "deje su|un mensaje; despues del tono|bip; despues de la senal; buzon de voz"
    ),
    Intent.WHO: (
        "who is this|calling|speaking|it; who's this|calling|speaking|that; who are you; who am i speaking|talking; "
        "what is|'s this|it about|for|regarding; what's this|it about|for|regarding; what is it about; why are|do you; "
        "why you asking|calling; why ask; what do you want; are you a "
        "robot|machine|computer|real|recording|person; is this a robot|recording; "
        "quien es|habla|llama; con quien hablo; de parte de quien; de que se trata; de que es; para que "
        "es|llama|quiere; "
        "por que me|pregunta*|llama|quiere*; que quiere*; es un robot|una"
    ),
    Intent.REPEAT: (
        "repeat; say that|it again; say again; pardon; come again; what did you say|ask; didn't|can't|couldn't "
        "hear|understand|catch; "
        "don't understand; what was that|the; excuse me; one more time; what do you mean; speak up; louder; "
        "repita*|repetir; otra vez; como dijo|dice; que dijo|dice; no le|lo|te "
        "entendi|oi|escuche|escucho|oigo|entiendo; "
        "no entendi|entiendo; mande; perdon; mas fuerte; mas despacio"
    ),
    Intent.GOODBYE: (
        "goodbye; good bye; bye; bye bye; have|got|gotta to go; gotta go; adios; hasta luego; me tengo que ir; "
        "tengo que irme"
    ),
    Intent.HELLO: (
        "hello; hi; hey; good morning|evening|afternoon; hola; buenos dias; buenas tardes|noches; bueno; diga; digame; "
        "alo"
    ),
}  # fmt: skip
_WHOLE: Mapping[Intent, frozenset[str]] = {  # these mean it only when nothing else is said
    Intent.REPEAT: frozenset({"what", "huh", "sorry", "que", "como", "what what", "sorry what"}),
    Intent.CALL_LATER: frozenset(
        {"later", "busy", "despues", "luego", "mas tarde", "ahora no", "ahorita no"}
    ),
    Intent.WHO: frozenset({"why", "who", "por que", "quien"}),
    Intent.OPT_OUT: frozenset({"stop", "stop it", "stop stop stop", "parar", "alto"}),
    Intent.PERSON: frozenset({"nurse", "operator", "enfermera", "operadora", "a nurse", "una enfermera"}),
}

_UNSURE = (
    "don't know; do not know; not sure; unsure; can't|don't|cannot remember|recall|say|tell; maybe; might have; "
    "no idea; i forget; not certain; perhaps; hard to say; beats me; could be; "
    "no se; no estoy segur*; no me acuerdo; no recuerdo; quizas; quiza; tal vez; a lo mejor; puede ser; quien "
    "sabe; no sabria"
)
_SURE_YES = (  # these contradict a no
    "yes; yeah; yep; yup; yessir; aye; correct; absolutely; definitely; certainly; indeed; affirmative; uh "
    "huh; mhm; mmhmm; "
    "si; sip; claro; por supuesto; correcto; exacto; asi es; desde luego; efectivamente"
)
_YES = (  # these only say yes where nothing says no
    "ya; sure; of course; i did; i do; i took|had; i think so; i "
    "guess|suppose|believe so; "
    "speaking; that's me|right; this is she|he|her|him; it's me; it is; you bet; go ahead; "
    "a little; little bit; a bit; kind|sort of; sometimes; some; no problem; no doubt; no worries; already took|did; "
    "cierto; soy yo; con el|ella; el|ella habla; la misma|el; el mismo; ella misma; un poco; un poquito; a "
    "veces; algo; "
    "creo que si; como no; adelante; servidor*; a sus ordenes; no hay problema"
)
_SURE_NO = frozenset(
    "no nope nah never none nothing negative nada nunca ninguno ninguna jamas tampoco neither".split()
)
_NO = (
    "i forgot; forgot to|it|them; don't think so; not yet; not really; not at all; uh uh; not today; none of; "
    "todavia no; aun no; se me olvido; se me olvidaron; olvide; negativo; para nada; creo que no; nothing "
    "else|more; nada mas"
)
_NEGATING = frozenset(
    "no not don't didn't haven't hasn't hadn't isn't ain't doesn't wasn't can't won't without sin ningun cannot".split()
)
_GENERIC = frozenset(  # beside a negating word these leave a plain no: "I haven't taken any of them yet"
    "i i'm i've have has any of those that them it these this the yet taken take took had today morning noon "
    "evening night right else feel "
    "feeling felt at all really do did been my pills pill medicine medicines medication medications anything "
    "either now one "
    "none nothing no not be is am are was me sir ma'am thanks thank you here she he her him experienced "
    "noticed symptoms "
    "he las los la lo me tomado tome tomo tomé tengo tuve tenido siento hoy ayer manana tarde noche nada "
    "ninguno ninguna ningun "
    "de eso esos esas esto ellas mis medicinas medicina pastillas senor senora gracias soy estoy esta ella el "
    "todavia aun "
    "bien todo que se sentido mal".split()
)
_NOT_NO = (
    "no problem; no doubt; no worries; not bad; can't complain; como no; why not; no hay problema; no se preocupe; "
    "not only"
)
_CORRECTION = "i mean; actually; wait; correction; digo; quiero decir; mas bien; no wait; scratch that"


def understand(
    text: str,
    language: str,
    expected: QuestionKind,
    *,
    symptoms: Sequence[Symptom] = GENERAL,
    also_yes: Sequence[str] = (),
    also_no: Sequence[str] = (),
) -> Understood:
    """What `text` means as an answer to a question of kind `expected`.

    `also_yes` and `also_no` are the question's own phrases ("i took them"). Repeated words mean what they mean once.
    A contradiction means nothing: better to ask again than to guess. Yes, no and wishes are known in both languages
    whatever `language` is, numbers in `language` first.
    """
    said = _once(words(text))
    cleaned = " ".join(said)
    meaning = _polarity(said, _exclaims_no(tokens(text)), also_yes, also_no)
    value = number(cleaned, language)
    if value is None:
        value = number(cleaned, "es" if language == "en" else "en")
    seen = (
        (years(cleaned, "en") | years(cleaned, "es")) if expected is QuestionKind.YEAR else frozenset[int]()
    )
    if seen or (expected is QuestionKind.NUMBER and value is not None):
        meaning = Meaning.NUMBER
    elif expected is QuestionKind.FREE and said and meaning is Meaning.NOTHING and _CONTENT.issuperset(said):
        meaning = Meaning.NO  # "everything is fine": nothing to tell
    elif (
        expected is QuestionKind.FREE
        and said
        and meaning is not Meaning.UNSURE
        and not _only_polar(said, meaning)
    ):
        meaning = Meaning.WORDS
    return Understood(meaning, value, seen, _intent(said), mentions(text, symptoms), cleaned)


def _once(said: tuple[str, ...]) -> tuple[str, ...]:
    """Words that are one phrase two or more times over, once: realtime transcripts triplicate."""
    for length in range(1, len(said) // 2 + 1):
        if len(said) % length == 0 and said == said[:length] * (len(said) // length):
            return said[:length]
    return said


def _intent(said: tuple[str, ...]) -> Intent | None:
    whole = " ".join(said)
    for intent in Intent:
        if intent is Intent.OPT_OUT and not _FOR_NOW.isdisjoint(said) and _FOR_EVER.isdisjoint(said):
            if _any(said, _INTENTS[intent]):
                return Intent.CALL_LATER  # "don't call me now": an opt-out would be permanent
            continue
        if whole in _WHOLE.get(intent, ()) or _any(said, _INTENTS[intent]):
            return intent
    return None


def _any(said: tuple[str, ...], phrases: str | Sequence[str]) -> bool:
    listed = phrases.split(";") if isinstance(phrases, str) else phrases
    return any(contains(said, phrase) for phrase in listed)


_EMPTY = frozenset(
    "so just else please think guess well fine good everything's everything okay for there's there is that's "
    "all can of i'd "
    "mas muy es eso por ahora favor con".split()
)
_CONTENT = _GENERIC | _SURE_NO | _EMPTY | {"ok", "great", "alright", "better", "perfect", "perfecto", "mejor"}
_FOR_NOW = frozenset("now later tomorrow tonight today before ahora ahorita hoy luego manana despues".split())
_FOR_EVER = frozenset("again anymore ever stop never list nunca deje dejen mas".split())


def _polarity(
    said: tuple[str, ...], exclaims_no: bool, also_yes: Sequence[str], also_no: Sequence[str]
) -> Meaning:
    if not said:
        return Meaning.NOTHING
    if corrected := _after_correction(said):
        exclaims_no = corrected[0] in _SURE_NO
        verdict = _polarity(corrected, exclaims_no, also_yes, also_no)
        if verdict is not Meaning.NOTHING:
            return verdict
    if _any(said, _UNSURE):
        return Meaning.UNSURE
    kept = _without(said, _NOT_NO)
    plain_no = not _NEGATING.isdisjoint(kept) and all(
        w in _GENERIC or w in _NEGATING or w in _SURE_NO for w in _without(kept, _SURE_YES)
    )
    only_no = bool(kept) and kept[0] in _SURE_NO and len(kept) == 1
    exclaims_no = exclaims_no and not _SURE_NO.isdisjoint(kept)
    says_no = only_no or plain_no or exclaims_no or _any(kept, _NO) or _any(said, also_no)
    surely_yes = _any(_without(said, _NO), _SURE_YES) or (_any(said, also_yes) and _NEGATING.isdisjoint(kept))
    if says_no and surely_yes:
        return Meaning.NOTHING
    if says_no:
        return Meaning.NO
    if (
        surely_yes
        or said == ("i", "have")
        or (_NEGATING.isdisjoint(kept) and _any(said, _YES) and _only_polar(said, Meaning.YES))
    ):  # "it is" is a yes, "it is raining" is not
        return Meaning.YES
    return Meaning.NOTHING


def _exclaims_no(heard: tuple[str, ...]) -> bool:
    """Whether a "no" stands by itself, before a comma or at the end; in English also at the very beginning."""
    said = [token for token in heard if token not in FILLERS]
    for n, token in enumerate(said):
        after = said[n + 1] if n + 1 < len(said) else "."
        if token in _SURE_NO and (
            after in PUNCTUATION or after in _SURE_NO or after in ("i", "i'm", "ma'am", "sir", "thank")
        ):
            return True
    return False


def _after_correction(said: tuple[str, ...]) -> tuple[str, ...]:
    for phrase in _CORRECTION.split(";"):
        at = find(said, phrase)
        if at > 0:
            return said[at + len(phrase.split()) :]
    return ()


def _without(said: tuple[str, ...], phrases: str) -> tuple[str, ...]:
    """The words with every such phrase cut out."""
    for phrase in sorted(phrases.split(";"), key=len, reverse=True):
        size = len(phrase.split())
        while (at := find(said, phrase)) >= 0:
            said = said[:at] + said[at + size :]
    return said


def _only_polar(said: tuple[str, ...], meaning: Meaning) -> bool:
    """Whether nothing is said beyond a yes or a no: "no, I'm fine, thank you"."""
    if meaning not in (Meaning.YES, Meaning.NO):
        return False
    left = _without(_without(_without(said, _SURE_YES), _YES), _NO)
    return all(word in _GENERIC or word in _NEGATING or word in _SURE_NO or word in _EMPTY for word in left)
