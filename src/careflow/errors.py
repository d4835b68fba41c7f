"""The package's exceptions. A subclass's docstring is its default message."""

from __future__ import annotations


class CareflowError(Exception):
    """CareFlow Pulse failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(CareflowError):
    """The settings are not usable."""


class StoreError(CareflowError):
    """The store could not do what was asked; nothing was changed."""


class StoreUnavailable(StoreError):
    """The store cannot be written now (full disk, read-only, locked); trying again later can help."""


class StoreInUse(StoreError):
    """Another process is running on this data directory."""


class StoreTooNew(StoreError):
    """The database was written by a newer version of CareFlow Pulse."""


class IllegalMove(CareflowError):
    """A state machine was asked for a move that its table does not hold."""


class ProviderError(CareflowError):
    """An outside service refused or failed.

    `permanent` is true when trying the same request again cannot help; `ambiguous` when the service may have
    done what was asked although we have no answer. `code` is the provider's own code, or the HTTP status.
    """

    def __init__(
        self, message: str, *, code: str = "", permanent: bool = False, ambiguous: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent
        self.ambiguous = ambiguous
