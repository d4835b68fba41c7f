"""The docs name every setting, every command, and only what is there; their commands are words that the command line takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from careflow.cli import build
from careflow.lab.firestore_emulator import JAR_VARIABLE
from careflow.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "docs", "scheduler", "infra", "infra/*", "careflow-agents/*", "src/careflow/**")
PAGES = sorted({page for folder in FOLDERS for page in ROOT.glob(f"{folder}/*.md")})
MAKEFILES = ("Makefile", "scheduler/Makefile", "infra/Makefile", "careflow-agents/agent.mk")
SCREEN = 60  # lines
_TRIED = re.compile(r"^(?: {4}|\$ )(careflow [^#\n]*)", re.MULTILINE)
_NAMED = re.compile(r"`(careflow [^`]*)`")
_VARIABLES = sorted(
    str(field.validation_alias or f"CAREFLOW_{name.upper()}") for name, field in Settings.model_fields.items()
)
_EXAMPLES = {
    "ROUND": "round",
    "CALL": "call",
    "ALERT": "alert",
    "PATIENT": "patient",
    "PATH…": "path",
    "ID": "id",
}


def words(command: str) -> list[str]:
    """The command as it would be typed: placeholders filled in, optional words in brackets left out."""
    return [_EXAMPLES.get(word, word) for word in re.sub(r"\[[^]]*\]", "", command).split()[1:]]


def commands(app: App, *path: str) -> Iterator[tuple[str, ...]]:
    for name in app:
        if name.startswith("-"):
            continue
        try:
            inner = [one for one in app[name] if not one.startswith("-")]
        except (TypeError, KeyError):
            inner = []
        if inner:
            yield from commands(app[name], *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("name", _VARIABLES)
def test_every_setting_is_in_the_settings_page(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs/settings.md").read_text()


def test_the_settings_page_names_no_setting_that_is_gone() -> None:
    named = re.findall(r"`([A-Z_]+)`", (ROOT / "docs/settings.md").read_text())
    assert {name for name in named if "_" in name} == set(_VARIABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_setting_that_is_not_there(page: Path) -> None:
    named = {name.lower() for name in re.findall(r"\bCAREFLOW_([A-Z_]+)\b(?!_\*)", page.read_text())}
    tools = {JAR_VARIABLE.removeprefix("CAREFLOW_").lower()}  # of a developer's machine
    assert {name for name in named if not name.startswith("test_")} <= set(Settings.model_fields) | tools


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("command", sorted(commands(build())), ids=" ".join)
def test_every_command_is_in_the_commands_page(command: tuple[str, ...]) -> None:
    page = (ROOT / "docs/commands.md").read_text()
    group = command[0] == "jobs"  # `careflow jobs --help` has the rest
    named = command[:1] if group or command[0] == "serve" else command
    assert f"careflow {' '.join(named)}" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_docs_is_one(page: Path) -> None:
    text = page.read_text()
    for command in [*_TRIED.findall(text), *_NAMED.findall(text)]:
        tokens = words(command)
        if tokens and tokens[0].isupper():
            continue  # careflow COMMAND --help
        if tokens[:1] == ["--help"] or tokens[-1:] == ["--help"] or len(tokens) == 1:
            build()[tokens[0]] if tokens[0] != "--help" else None
            continue
        build().parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_in_the_docs_is_one(page: Path) -> None:
    text = "\n".join((ROOT / name).read_text() for name in MAKEFILES)
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    named = re.findall(r"(?:`|^ {4})make (?:-C \S+ )?([a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets


def test_the_readme_fits_a_screen_and_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= SCREEN
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme] == []


def test_every_guard_and_test_of_the_invariants_page_is_there() -> None:
    page = (ROOT / "docs/invariants.md").read_text()
    assert re.findall(r"^\| (\d) ", page, re.MULTILINE) == list("12345678")
    for file, name in re.findall(r"`([\w/]+\.(?:py|sql)):(\w+)`", page):
        found = [path for path in (ROOT / "src/careflow" / file, ROOT / "tests" / file) if path.exists()]
        assert found, file
        assert re.search(rf"\b{name}\b", found[0].read_text()), f"{file}:{name}"
