"""The prompts that every patient hears, spoken before anybody is on the line: their first word then comes at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from careflow.core import dialogue
from careflow.core.hospitals import Hospital
from careflow.core.script import Script
from careflow.errors import ProviderError
from careflow.ports import Speech

log = logging.getLogger(__name__)


async def warm(speech: Speech, scripts: Collection[Script], hospitals: Iterable[Hospital]) -> None:
    """Put each prompt that names no patient into the audio cache. When the provider refuses, a call will ask again."""
    texts = {
        prompt: None  # a set that keeps its order: the greetings come first
        for hospital in hospitals
        for script in scripts
        for prompt in dialogue.prompts(script, clinic_name=hospital.name, clinic_phone=hospital.phone)
    }
    for text, language in texts:
        try:
            await speech.say(text, language)
        except ProviderError as error:
            log.warning("prompts are not pre-rendered: the speech provider answers %s", error.code)
            return
