# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""Whether a speaker denies what is mentioned. In doubt the answer is no: a complaint overheard costs more than a false alarm.

A mention is denied only when exactly one negation governs it, with nothing but harmless words in between ("no chest pain",
"I don't have any chest pain", "my chest doesn't hurt", "no pain, swelling or fever"), and nothing after takes it back
("no chest pain except at night").
"""

from __future__ import annotations

from collections.abc import Sequence

from careflow.core.words import FILLERS, PUNCTUATION

_NEGATORS = frozenset(
    "no not don't doesn't didn't haven't hasn't hadn't isn't aren't wasn't weren't ain't can't cannot couldn't wouldn't "
    "without never none neither nor zero nope nah denies deny sin ni ningun ninguna ninguno nada nunca tampoco jamas".split()
)
_CONCORD = frozenset("no none never nor neither ni ningun ninguna ninguno nada nunca tampoco jamas".split())
CONTRAST = frozenset(
    "but except although though however unless until pero aunque sino excepto salvo besides".split()
)
_LIST = frozenset("or nor ni o u".split())
_HARMLESS = frozenset(
    "have has had having any a an the of feel feeling felt got get getting been be being am is are was were do does did "
    "experienced experiencing noticed noticing more really at all with my in kind sort sign signs symptom symptoms new severe "
    "bad much real such type single right now currently today this morning longer and yet trouble problem problems "
    "from suffer suffering to i i'm i've "
    "tengo tiene tenido he ha hay habido siento sentido me de del el la los las un una en mi mas mucho mucha muy ningun "
    "ninguna tuve senti duele dolor estoy esta hoy ahora problemas nada".split()
)
_BREAKS = frozenset(  # between a negation and a list these show that the negation governs something else
    "because since so cause when if due i i'm i've my it it's is are feel feels maybe know think sure say only just sleep slept "
    "eat porque cuando si creo se quiza quizas solo dormir dormi comer mi que puedo".split()
)
_AFTER_EXCLAMATION = frozenset(  # what follows a "no" that answers something else: "no my chest hurts"
    "i i'm i've my it it's the there there's she we they this that that's well but actually sir ma'am thank thanks yes just "
    "only not no nothing never don't none nope yo mi senora senor gracias pero solo nada nunca si".split()
)
_TAKES_BACK = frozenset(
    "earlier yesterday sometimes little bit when whenever only ayer veces poco cuando antes solo".split()
)
_EXCEPTIONS = frozenset("except unless until besides excepto salvo sino".split())
_PLAIN_NO = frozenset(
    "no nope none nah i don't haven't not at all sir ma'am do have had thanks thank you senor senora gracias".split()
)


def denied(heard: tuple[str, ...], places: Sequence[tuple[int, ...]]) -> tuple[bool, ...]:
    """For each mention (its token positions, ordered), whether it is clearly denied."""
    verdicts: list[bool] = []
    for index, place in enumerate(places):
        previous = places[index - 1] if index else ()
        overlapping = bool(previous) and previous[-1] >= place[0]
        before = 0 if not previous or overlapping else previous[-1] + 1
        following = places[index + 1][0] if index + 1 < len(places) else len(heard)
        left = _governing(heard, before, place[0])
        inherited = bool(verdicts) and verdicts[-1] and not overlapping
        no = _clearly_denied(heard, place, left, inherited=inherited and _listed(heard, before, place))
        verdicts.append(no and not _taken_back(heard, place[-1] + 1, max(following, place[-1] + 1)))
    return tuple(verdicts)


def _governing(heard: tuple[str, ...], begin: int, end: int) -> range:
    """The words before a mention that may govern it: from the last contrast, sentence, or comma that a denial follows."""
    start = begin
    for n in range(begin, end):
        word = heard[n]
        resumes = heard[n + 1] in ("no", "not", "nor", "neither", "without", "ni", "sin", "i", "i've", "i'm")
        if (
            word in CONTRAST
            or word in ".;!?:"
            or (word == "," and resumes and _negators(heard, range(n + 1, end)))
        ):
            start = n + 1
    return range(start, end)


def _negators(heard: tuple[str, ...], where: Sequence[int]) -> list[int]:
    found: list[int] = []
    for n in where:
        if heard[n] not in _NEGATORS:
            continue
        after = heard[n + 1] if n + 1 < len(heard) else "."
        exclaimed = heard[n] in ("no", "nope", "nah") and (
            after in PUNCTUATION or after in _AFTER_EXCLAMATION
        )
        # "don't have no pain", "no tengo ningun dolor": both languages say one denial with two words.
        doubled = (
            bool(found)
            and heard[n] in _CONCORD
            and heard[found[-1]] not in ("can't", "cannot", "couldn't", "sin")
        )
        concord = doubled and (heard[n] != "no" or (heard[found[-1]] != "no" and n - found[-1] <= 2))
        if not exclaimed and not concord:
            found.append(n)
    return found


def _clearly_denied(heard: tuple[str, ...], place: tuple[int, ...], left: range, *, inherited: bool) -> bool:
    inside = _negators(heard, [n for n in range(place[0], place[-1]) if n not in place])
    outside = _negators(heard, left)
    if len(inside) + len(outside) > 1:
        return False
    if inside:
        return True
    if not outside:
        return inherited or _answered_no(heard[place[-1] + 1 :])
    between = [w for w in heard[outside[0] + 1 : place[0]] if w not in PUNCTUATION and w not in FILLERS]
    if all(word in _HARMLESS or word in _NEGATORS or word in _LIST for word in between):
        return True
    return any(word in _LIST for word in between[-3:]) and _BREAKS.isdisjoint(between)


def _listed(heard: tuple[str, ...], begin: int, place: tuple[int, ...]) -> bool:
    """Whether only a list's words join the mention to the one before: "…, swelling or fever"."""
    joint = [word for word in heard[begin : place[0]] if word not in FILLERS]
    if any(
        word not in _LIST and word != "," and word not in ("any", "a", "an", "de", "my") for word in joint
    ):
        return False
    rest = heard[place[-1] : place[-1] + 12]
    return not _LIST.isdisjoint(joint) or ("," in joint and not _LIST.isdisjoint(rest))


def _answered_no(rest: tuple[str, ...]) -> bool:
    """ "Chest pain? No." and nothing else after it."""
    said = [word for word in rest if word not in PUNCTUATION and word not in FILLERS]
    return bool(said) and said[0] in ("no", "nope", "none", "nah") and _PLAIN_NO.issuperset(said)


def _taken_back(heard: tuple[str, ...], begin: int, end: int) -> bool:
    """Whether an exception follows: "except at night", "just when I walk", "but a little yesterday"."""
    rest = heard[begin:end]
    for n, word in enumerate(rest):
        if word in ".;!?":
            return False
        if word in _EXCEPTIONS or (
            word in ("just", "only", "solo") and not {"when", "cuando"}.isdisjoint(rest[n : n + 3])
        ):
            return end == len(heard) or word in ("unless", "until")
        if word in CONTRAST:
            return end == len(heard) and not _TAKES_BACK.isdisjoint(rest[n:])
    return False
