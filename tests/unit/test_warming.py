"""Prompts rendered before anybody is on the line."""

from __future__ import annotations

from careflow.caller.warming import warm
from careflow.errors import ProviderError
from careflow.scripts import load_scripts
from careflow.settings import Settings

RIVERSIDE = Settings(clinic_name="Riverside").served


class Voice:
    def __init__(self, refuses_after: int = 10_000) -> None:
        self.said: list[tuple[str, str]] = []
        self._refuses_after = refuses_after

    async def say(self, text: str, language: str) -> bytes:
        if len(self.said) >= self._refuses_after:
            raise ProviderError("no", code="quota_exceeded", permanent=True)
        self.said.append((text, language))
        return b""


async def test_every_shared_prompt_is_spoken_once_in_both_languages_and_names_nobody() -> None:
    voice = Voice()
    await warm(voice, load_scripts().values(), RIVERSIDE)  # type: ignore[arg-type]
    assert len(voice.said) == len(set(voice.said)) > 40
    assert {language for _, language in voice.said} == {"en", "es"}
    assert any("Riverside" in text for text, _ in voice.said)
    assert not any("{" in text for text, _ in voice.said)


async def test_a_provider_that_refuses_is_not_asked_on() -> None:
    voice = Voice(refuses_after=3)
    await warm(voice, load_scripts().values(), RIVERSIDE)  # type: ignore[arg-type]
    assert len(voice.said) == 3
