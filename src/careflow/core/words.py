# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""Heard text as plain tokens: lower case, no accents, no non-speech tags, the marks of punctuation kept."""

from __future__ import annotations

import re
import unicodedata

_TAG = re.compile(
    r"\([^)]*\)|\[[^\]]*\]|\*[^*]*\*|<[^>]*>"
)  # "(music)", "[inaudible]": reference/elevenlabs.md
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:'[a-z]+)?|[.,;:!?]")
_BARE = {  # transcripts often lose the apostrophe, and a lost "n't" would turn a denial into a complaint
    word.replace("'", ""): word
    for word in (
        "don't doesn't didn't haven't hasn't hadn't isn't aren't wasn't weren't can't couldn't won't wouldn't "
        "shouldn't ain't i'm i've"
    ).split()
}
PUNCTUATION = frozenset(".,;:!?")
HESITATIONS = frozenset("uh uhm um umm er erm hmm mm ah eh".split())
FILLERS = HESITATIONS | {"este", "pues", "well", "like"}


def plain(text: str) -> str:
    """Lower case, accents and non-speech tags removed, one kind of apostrophe."""
    folded = unicodedata.normalize("NFKD", _TAG.sub(" ", text).replace("\u2019", "'").lower())
    return "".join(char for char in folded if not unicodedata.combining(char))


def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and marks of punctuation, in order."""
    text = re.sub(r"(\d),(?=\d{3}\b)", r"\1", plain(text))
    text = re.sub(r"(\d),(?=\d{1,2}\b)", r"\1.", text)  # "38,5" in Spanish
    return tuple(_BARE.get(token, token) for token in _TOKEN.findall(text.replace("-", " ")))


def words(text: str) -> tuple[str, ...]:
    """The tokens without punctuation and fillers ("uh", "este")."""
    return tuple(token for token in tokens(text) if token not in PUNCTUATION and token not in FILLERS)


def contains(sequence: tuple[str, ...], phrase: str) -> bool:
    """Whether the words of `phrase` occur in `sequence` side by side; "*" at the end of a word stands for any ending."""
    return find(sequence, phrase) >= 0


def find(sequence: tuple[str, ...], phrase: str) -> int:
    """Where `phrase` begins in `sequence` (see `contains`), or -1."""
    wanted = phrase.split()
    for start in range(len(sequence) - len(wanted) + 1):
        if all(matches(word, sequence[start + n]) for n, word in enumerate(wanted)):
            return start
    return -1


def matches(pattern: str, word: str) -> bool:
    """Whether one word fits "a|b*": alternatives, each a whole word or a beginning."""
    return any(
        word.startswith(option[:-1]) if option.endswith("*") else word == option
        for option in pattern.split("|")
    )
