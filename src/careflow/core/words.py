# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""Heard text as plain tokens: lower case, no accents, no non-speech tags, the marks of punctuation kept."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

_TAG = re.compile(r"\([^)]*\)|\[[^\]]*\]|\*[^*]*\*|<[^>]*>")  # "(music)", "[inaudible]": reference/elevenlabs
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:'[a-z]+)?|[.,;:!?]")
_BARE = {  # transcripts often lose the apostrophe, and a lost "n't" would turn a denial into a complaint
    word.replace("'", ""): word
    for word in (
        "don't doesn't didn't haven't hasn't hadn't isn't aren't wasn't weren't can't couldn't won't wouldn't "
        "shouldn't ain't i'm i've"
    ).split()
}
MOST = 600  # tokens of one utterance that are looked at: three minutes of unbroken speech, from both ends
PUNCTUATION = frozenset(".,;:!?")
HESITATIONS = frozenset("uh uhm um umm er erm hmm mm ah eh".split())
FILLERS = HESITATIONS | {"este", "pues", "well", "like"}


def plain(text: str) -> str:
    """Lower case, accents and non-speech tags removed, one kind of apostrophe."""
    folded = unicodedata.normalize("NFKD", _TAG.sub(" ", text).replace("\u2019", "'").lower())
    return "".join(char for char in folded if not unicodedata.combining(char))


def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and marks of punctuation, in order; at most MOST of them."""
    text = re.sub(r"(\d),(?=\d{3}\b)", r"\1", plain(text))
    text = re.sub(r"(\d),(?=\d{1,2}\b)", r"\1.", text)  # "38,5" in Spanish
    found = _TOKEN.findall(text.replace("-", " "))
    if len(found) > MOST:
        found = found[: MOST // 2] + found[-MOST // 2 :]
    return tuple(_BARE.get(token, token) for token in found)


def words(text: str) -> tuple[str, ...]:
    """The tokens without punctuation and fillers ("uh", "este")."""
    return tuple(token for token in tokens(text) if token not in PUNCTUATION and token not in FILLERS)


def contains(sequence: tuple[str, ...], phrase: str) -> bool:
    """Whether the words of `phrase` occur in `sequence` side by side, each as in `Group`."""
    return find(sequence, phrase) >= 0


def find(sequence: tuple[str, ...], phrase: str) -> int:
    """Where `phrase` begins in `sequence` (see `contains`), or -1."""
    wanted = groups(phrase)
    first = wanted[0]
    for start in range(len(sequence) - len(wanted) + 1):
        if first.matches(sequence[start]) and all(
            group.matches(sequence[start + n]) for n, group in enumerate(wanted)
        ):
            return start
    return -1


@dataclass(frozen=True, slots=True)
class Group:
    """One place of a phrase: "a|b*" is the word "a", or any word that begins with "b"."""

    exact: frozenset[str]
    beginnings: tuple[str, ...]

    def matches(self, word: str) -> bool:
        """Whether the word fits here."""
        return word in self.exact or word.startswith(self.beginnings)


@cache  # the phrases are constants of the vocabulary and of the scripts
def groups(phrase: str) -> tuple[Group, ...]:
    """The places of a phrase, in order."""
    return tuple(
        Group(
            frozenset(option for option in word.split("|") if not option.endswith("*")),
            tuple(option[:-1] for option in word.split("|") if option.endswith("*")),
        )
        for word in phrase.split()
    )
