"""Read the check-in scripts, strictly: what is not understood is refused with its file, field and value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import yaml

from careflow.core.checkins import AlertKind
from careflow.core.script import (
    BOUND,
    FRAME_QUESTIONS,
    LANGUAGES,
    PLACEHOLDERS,
    PRIVATE,
    PROMPTS,
    Question,
    QuestionKind,
    Rule,
    Script,
    ScriptError,
    Waits,
    Wording,
    placeholders,
)
from careflow.core.words import words

# The same safe loader in C where PyYAML has it: ten times as fast, and this is part of every cold start.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NAMES = ("morning", "noon", "evening")
COMMON = "common.yaml"
_VALUES = ("yes", "no", "unsure", "unanswered", "words")
_ALERTS = (AlertKind.RED_FLAG, AlertKind.WARNING, AlertKind.CALLBACK)
_NEEDS = ("", "medications")
_SPOKEN = ("ask", "reask", "keypad")
_WAITS = ("voice", "keypad", "keys", "hold", "machine")


def load_scripts(directory: Path | None = None) -> Mapping[str, Script]:
    """The scripts by name, from `directory` or, without one, those that ship with the package.

    Raises ScriptError, which names the file, the field, the value and what is accepted.
    """
    folder = directory or Path(__file__).parent
    common = _Node.read(folder / COMMON)
    common.only("waits", "prompts", "frame")
    waits = _waits(common.at("waits"))
    prompts = _prompts(common.at("prompts"))
    frame = _frame(common.at("frame"))
    scripts: dict[str, Script] = {}
    for name in NAMES:
        node = _Node.read(folder / f"{name}.yaml")
        node.only("name", "version", "questions")
        if node.at("name").text() != name:
            node.at("name").refuse(f'"{name}", as the file is called')
        scripts[name] = Script(
            name=name,
            version=node.at("version").text(),
            prompts=prompts,
            frame=frame,
            questions=_questions(node.at("questions")),
            waits=waits,
        )
    return scripts


@dataclass(frozen=True)
class _Node:
    """A value in a file, and where it is."""

    file: str
    path: str
    value: Any

    @classmethod
    def read(cls, path: Path) -> _Node:
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path.name, "", yaml.load(text, Loader=_LOADER))  # noqa: S506 - a safe one
        except OSError as error:
            raise ScriptError(f"{path.name}: cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ScriptError(f"{path.name}: is not YAML: {error}") from error

    def refuse(self, accepted: str) -> NoReturn:
        raise ScriptError(
            f"{self.file}: {self.path or 'the file'}: {self.value!r} is not accepted, but {accepted}"
        )

    def mapping(self) -> dict[str, Any]:
        # YAML 1.1 reads a bare yes or no as a boolean; as a key that is the language of nobody, so text is asked for.
        if not isinstance(self.value, dict) or not all(isinstance(key, str) for key in self.value):
            self.refuse("a table of named fields")
        return self.value

    def only(self, *required: str, optional: tuple[str, ...] = ()) -> None:
        given = self.mapping()
        for key in given:
            if key not in required and key not in optional:
                self._child(key, key).refuse(f"one of {', '.join((*required, *optional))}")
        for key in required:
            if key not in given:
                raise ScriptError(f"{self.file}: {self._path(key)}: is missing")

    def at(self, key: str) -> _Node:
        return self._child(key, self.mapping()[key])

    def maybe(self, key: str, default: Any) -> _Node:
        return self._child(key, self.mapping().get(key, default))

    def items(self) -> list[_Node]:
        if not isinstance(self.value, list):
            self.refuse("a list")
        return [_Node(self.file, f"{self.path}[{n}]", value) for n, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            self.refuse("text that is not empty, in quotes")
        return self.value

    def prompt(self, *, private: bool) -> str:
        """A text to be spoken, with known placeholders; `private` ones only after identity is confirmed."""
        allowed = PLACEHOLDERS if private else PLACEHOLDERS - PRIVATE
        text = self.text()
        if text.count("{") != text.count("}") or text.count("{") != len(_braces(text)):
            self.refuse("text with whole {placeholders}")
        for name in placeholders(text) - allowed:
            where = "" if private or name not in PRIVATE else " before identity is confirmed"
            raise ScriptError(
                f"{self.file}: {self.path}: {{{name}}} is not accepted{where}, but {', '.join(sorted(allowed))}"
            )
        return text

    def phrase(self) -> str:
        """A phrase to be listened for, as words are heard: without accents, capitals and fillers."""
        phrase = " ".join(words(self.text()))
        if not phrase:
            self.refuse("words that mean something")
        return phrase

    def number(self, least: float) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or self.value < least:
            self.refuse(f"a number from {least:g} on")
        return float(self.value)

    def choice(self, *accepted: str) -> str:
        value = (
            {True: "yes", False: "no"}.get(self.value, self.value)
            if isinstance(self.value, bool)
            else self.value
        )
        if value not in accepted:
            self.refuse(f"one of {', '.join(repr(str(a)) for a in accepted)}")
        return str(value)

    def _path(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _child(self, key: str, value: Any) -> _Node:
        return _Node(self.file, self._path(key), value)


def _braces(text: str) -> list[str]:
    return [part for part in text.split("{")[1:] if "}" in part]


def _waits(node: _Node) -> Waits:
    node.only(*_WAITS)
    return Waits(**{name: node.at(name).number(1) for name in _WAITS})


def _prompts(node: _Node) -> Mapping[str, Mapping[str, str]]:
    node.only(*LANGUAGES)
    found: dict[str, Mapping[str, str]] = {}
    for language in LANGUAGES:
        table = node.at(language)
        table.only(*PROMPTS)
        found[language] = {key: table.at(key).prompt(private=not early) for key, early in PROMPTS.items()}
    return found


def _frame(node: _Node) -> Mapping[str, Question]:
    node.only(*FRAME_QUESTIONS)
    found: dict[str, Question] = {}
    for name in FRAME_QUESTIONS:
        question = node.at(name)
        question.only("kind", *LANGUAGES)
        kind = question.at("kind").choice(QuestionKind.YEAR if name == "year" else QuestionKind.YES_NO)
        found[name] = _question(question, name, QuestionKind(kind), private=False)
    return found


def _questions(node: _Node) -> tuple[Question, ...]:
    found: dict[str, Question] = {}
    for item in node.items():
        item.only(
            "id", "kind", *LANGUAGES, optional=("needs", "about_symptoms", "minimum", "maximum", "rules")
        )
        name = item.at("id").text()
        if name in found:
            item.at("id").refuse("an id that no other question of the script has")
        kind = QuestionKind(
            item.at("kind").choice(QuestionKind.YES_NO, QuestionKind.NUMBER, QuestionKind.FREE)
        )
        found[name] = _question(item, name, kind, private=True)
    if not found:
        node.refuse("at least one question")
    return tuple(found.values())


def _question(node: _Node, name: str, kind: QuestionKind, *, private: bool) -> Question:
    given = node.mapping()
    if kind is not QuestionKind.NUMBER and ("minimum" in given or "maximum" in given):
        node.at("minimum" if "minimum" in given else "maximum").refuse(
            "nothing: only a number question has bounds"
        )
    least = node.maybe("minimum", 0).number(0)
    most = node.maybe("maximum", 999).number(least)
    about = node.maybe("about_symptoms", False)
    if not isinstance(about.value, bool):
        about.refuse("true or false")
    wordings, yes, no = {}, {}, {}
    for language in LANGUAGES:
        table = node.at(language)
        table.only(*_SPOKEN, optional=("also_yes", "also_no"))
        wordings[language] = Wording(*(table.at(key).prompt(private=private) for key in _SPOKEN))
        yes[language] = tuple(item.phrase() for item in table.maybe("also_yes", []).items())
        no[language] = tuple(item.phrase() for item in table.maybe("also_no", []).items())
    return Question(
        id=name,
        kind=kind,
        wordings=wordings,
        rules=tuple(_rule(rule) for rule in node.maybe("rules", []).items()),
        minimum=Decimal(str(least)),
        maximum=Decimal(str(most)),
        needs=node.maybe("needs", "").choice(*_NEEDS),
        about_symptoms=about.value,
        also_yes=yes,
        also_no=no,
    )


def _rule(node: _Node) -> Rule:
    node.only("when", "alert", "code", optional=("say",))
    when = node.at("when")
    if not (isinstance(when.value, str) and BOUND.fullmatch(when.value)):
        when = _Node(when.file, when.path, when.choice(*_VALUES))
    say: Mapping[str, str] = {}
    if "say" in node.mapping():
        table = node.at("say")
        table.only(*LANGUAGES)
        say = {language: table.at(language).prompt(private=True) for language in LANGUAGES}
    return Rule(when.value, AlertKind(node.at("alert").choice(*_ALERTS)), node.at("code").text(), say)
