"""A valid token, changed by a single character anywhere, is refused."""

from __future__ import annotations

import asyncio
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.auth.issuer import LocalIssuer
from careflow.auth.jwks import FileKeys
from careflow.auth.verify import AuthError, Verifier
from careflow.clock import VirtualClock

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
ACCOUNT = "queue@careflow-local.iam.gserviceaccount.com"
ALPHABET = string.ascii_letters + string.digits + "-_.=+/ \n\x00"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> LocalIssuer:
    return LocalIssuer(Path(tmp_path_factory.mktemp("issuer")))


def verified(issuer: LocalIssuer, token: str, *, trust: bool = False) -> bool:
    verifier = Verifier(
        FileKeys(issuer.jwks_path),
        issuers=frozenset({issuer.issuer}),
        clock=VirtualClock(NOW + timedelta(minutes=1)),
        trust_platform=trust,
    )
    try:
        asyncio.run(verifier.verify(token, audience="a", accounts=frozenset({ACCOUNT})))
    except AuthError:
        return False
    return True


@given(place=st.floats(0, 1, exclude_max=True), other=st.sampled_from(ALPHABET), trust=st.booleans())
def test_any_change_of_one_character_is_refused(
    issuer: LocalIssuer, place: float, other: str, trust: bool
) -> None:
    token = issuer.mint(ACCOUNT, "a", NOW)
    at = int(place * len(token))
    assert verified(issuer, token)
    changed = token[:at] + other + token[at + 1 :]
    assert verified(issuer, changed, trust=trust) is (changed == token)


def test_the_last_character_has_one_spelling(issuer: LocalIssuer) -> None:
    """Its four spare bits mean nothing to a lenient decoder."""
    token = issuer.mint(ACCOUNT, "a", NOW)
    accepted = [letter for letter in ALPHABET if verified(issuer, token[:-1] + letter)]
    assert accepted == [token[-1]]


@given(cut=st.floats(0, 1, exclude_max=True))
def test_any_part_cut_off_is_refused(issuer: LocalIssuer, cut: float) -> None:
    token = issuer.mint(ACCOUNT, "a", NOW)
    assert not verified(issuer, token[: int(cut * len(token))], trust=True)


@given(text=st.text(max_size=200))
def test_no_text_makes_it_fail_otherwise_than_by_refusing(issuer: LocalIssuer, text: str) -> None:
    assert not verified(issuer, text, trust=True)
