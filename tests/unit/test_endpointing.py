"""Where speech begins and ends, in media time."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from careflow.caller.endpointing import Edge, EndpointConfig, Endpointer

STARTED, BARGED, ENDED = Edge.SPEECH_STARTED, Edge.BARGED_IN, Edge.SPEECH_ENDED


def edges(pattern: Iterable[bool], *, playing: bool = False, step_ms: int = 20) -> list[tuple[int, Edge]]:
    """(end of the frame in ms, edge) for frames that are voiced or not."""
    endpointer = Endpointer(EndpointConfig())
    found: list[tuple[int, Edge]] = []
    for number, voiced in enumerate(pattern):
        level = 60.0 if voiced else 5.0
        here = endpointer.feed(number * step_ms, 20, level, prompt_playing=playing)
        found += [(number * step_ms + 20, edge) for edge in here]
    return found


def test_silence_is_no_speech() -> None:
    assert edges([False] * 500) == []


def test_a_click_is_no_speech() -> None:
    assert edges([True, True, *[False] * 100]) == []


def test_three_voiced_frames_among_five_begin_speech() -> None:
    assert edges([True, False, True, False, True]) == [(100, STARTED)]


def test_speech_ends_after_six_hundred_milliseconds_of_silence() -> None:
    assert edges([True] * 10 + [False] * 40) == [(60, STARTED), (800, ENDED)]


def test_a_pause_between_words_does_not_end_speech() -> None:
    pattern = [True] * 10 + [False] * 29 + [True] * 5 + [False] * 30
    assert edges(pattern) == [(60, STARTED), ((10 + 29 + 5) * 20 + 600, ENDED)]


def test_it_is_measured_by_the_frames_times_and_not_by_their_number() -> None:
    assert edges([True] * 4 + [False] * 4, step_ms=200)[-1] == (200 * 6 + 20, ENDED)


def test_barge_in_needs_two_hundred_milliseconds_over_a_prompt() -> None:
    assert edges([True] * 9 + [False] * 60, playing=True) == [(60, STARTED), (180 + 600, ENDED)]
    assert edges([True] * 10, playing=True) == [(60, STARTED), (200, BARGED)]


def test_speech_without_a_prompt_is_never_barge_in() -> None:
    assert BARGED not in [edge for _, edge in edges([True] * 100)]


def test_lasting_noise_becomes_silence() -> None:
    found = edges([True] * 2500)
    assert [edge for _, edge in found] == [STARTED, ENDED]
    assert found[1][0] < 15_000


def test_noise_on_the_line_does_not_hide_speech() -> None:
    endpointer = Endpointer(EndpointConfig())
    noise, speech = [35.0] * 1000, ([70.0] * 8 + [35.0] * 2) * 10
    found = []
    for number, level in enumerate(noise + speech + noise):
        found += endpointer.feed(number * 20, 20, level, prompt_playing=False)
    assert found[-2:] == [STARTED, ENDED]


def test_a_patient_who_talks_on_is_committed_in_pieces() -> None:
    pattern = ([True] * 40 + [False] * 10) * 60
    ends = [at for at, edge in edges(pattern) if edge is ENDED]
    assert len(ends) == 2
    assert ends[1] - ends[0] <= 20_300


@given(st.lists(st.booleans(), max_size=400), st.booleans())
def test_starts_and_ends_alternate_and_barge_in_lies_between_them(pattern: list[bool], playing: bool) -> None:
    kinds = [edge for _, edge in edges(pattern, playing=playing)]
    text = "".join({STARTED: "s", BARGED: "b", ENDED: "e"}[kind] for kind in kinds)
    rest = text.replace("sbe", "").replace("se", "")
    assert rest in ("", "s", "sb")
