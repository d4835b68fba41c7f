"""The docs name every setting, every command, and only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from careflow.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_settings_page(name: str) -> None:
    assert f"`CAREFLOW_{name.upper()}`" in (ROOT / "docs/settings.md").read_text()


def test_the_settings_page_names_no_setting_that_is_gone() -> None:
    named = re.findall(r"`CAREFLOW_([A-Z_]+)`", (ROOT / "docs/settings.md").read_text())
    assert {name.lower() for name in named} == set(Settings.model_fields)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_linked_file_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
