"""The file of hospital profiles (docs/hospitals.md), read strictly: every problem is told at once, with its place."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from careflow.core.hospitals import Hospital
from careflow.strict_json import parse
from careflow.zones import Zone

HOSPITAL_ID = r"^[a-z0-9][a-z0-9-]{0,39}$"
PHONE = r"^\+?[0-9 ().-]{3,20}$"
_E164 = r"^\+[1-9][0-9]{6,14}$"
_NAME = r"^[^\x00-\x1f\x7f{}]{1,100}$"  # it is spoken; braces would be a script's placeholder
_MAX_BYTES = 1_000_000


def _quoted(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("is a number; a telephone number stands in quotes, '+12125550100'")
    return value


def _ascending(hours: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(hours)))


_Hour = Annotated[int, Field(strict=True, ge=0, le=23)]
_Hours = Annotated[tuple[_Hour, ...], Field(min_length=1), AfterValidator(_ascending)]


class Profile(BaseModel):
    """One hospital of the file. What is left out is as the deployment's settings have it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=HOSPITAL_ID)]
    name: Annotated[str, Field(pattern=_NAME)]
    phone: Annotated[str, BeforeValidator(_quoted), Field(pattern=PHONE)]
    from_number: Annotated[str, BeforeValidator(_quoted), Field(pattern=_E164)] | None = None
    time_zone: Zone | None = None
    round_hours: _Hours | None = None

    def hospital(self, usual: Hospital) -> Hospital:
        """The hospital, with `usual`'s in the place of what the file leaves out."""
        return Hospital(
            id=self.id,
            name=self.name,
            phone=self.phone,
            from_number=self.from_number or usual.from_number,
            time_zone=self.time_zone or usual.time_zone,
            round_hours=self.round_hours or usual.round_hours,
        )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hospitals: Annotated[list[Profile], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class _Problem:
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def read_profiles(path: Path) -> tuple[Profile, ...]:
    """The profiles of a TOML or JSON file. Raises ValueError naming every field that is not accepted, and why."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"{path} has more than {_MAX_BYTES:,} bytes; accepted: a list of hospitals")
        document = _parsed(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    problems: list[_Problem] = []
    found: tuple[Profile, ...] = ()
    try:
        found = tuple(_File.model_validate(document).hospitals)
    except ValidationError as error:
        problems = [
            _Problem(_place(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in error.errors()
        ]
    problems += _repeated(document)
    if problems:
        raise ValueError(f"{path}:" + "".join(f"\n    {problem}" for problem in problems))
    return found


def _repeated(document: object) -> list[_Problem]:
    """Ids that stand there twice: told with the other problems, not after they are mended."""
    entries = document.get("hospitals") if isinstance(document, dict) else None
    ids = (
        [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    counted = Counter(one for one in ids if isinstance(one, str))
    return [
        _Problem("hospitals", f"{one!r} is the id of {count} of them; an id is one hospital's")
        for one, count in counted.items()
        if count > 1
    ]


def _place(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the file"


def _parsed(path: Path) -> object:
    """The document: JSON when it begins with a brace, which TOML never does; a mounted secret's name tells nothing.

    Both refuse a key that stands there twice: the second would win, and a patient hear the wrong name.
    """
    form = "TOML"
    try:
        content = path.read_bytes()
        if content.lstrip().startswith(b"{"):
            form = "JSON"
            return parse(content)
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{path} is not {form}: {error}") from None
