"""What a hospital is to the people it phones: its name, its numbers, its clock, the hours of its rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """One hospital of the deployment.

    `name` and `phone` are what the scripts say of it, `from_number` (E.164) is the caller id of its calls, `time_zone` (IANA) its
    own clock, `round_hours` (0 to 23, ascending) the hours of its day's rounds.
    """

    id: str
    name: str
    phone: str
    from_number: str
    time_zone: str
    round_hours: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hospitals:
    """The hospitals that a deployment serves: those that are named; or, when none is, any, and each is like `usual`."""

    named: Mapping[str, Hospital]
    usual: Hospital

    def __getitem__(self, hospital_id: str) -> Hospital:
        """The hospital. Raises KeyError when the deployment does not serve it."""
        if self.named:
            return self.named[hospital_id]
        return replace(self.usual, id=hospital_id)

    def get(self, hospital_id: str) -> Hospital | None:
        """The hospital, or None when the deployment does not serve it."""
        try:
            return self[hospital_id]
        except KeyError:
            return None

    def __contains__(self, hospital_id: object) -> bool:
        return not self.named or hospital_id in self.named

    def __iter__(self) -> Iterator[Hospital]:
        """Every hospital that is known before anybody asks for it, by id; at least one."""
        return iter([self.named[one] for one in sorted(self.named)] or [self.usual])

    def __len__(self) -> int:
        return len(self.named) or 1
