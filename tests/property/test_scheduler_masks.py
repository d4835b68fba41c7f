"""Update masks, held to an oracle: a leaf comes from the body when some path covers it, and stays as it was otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.google_api import masks, wire
from careflow.google_api.refusals import Refused
from careflow.google_api.wire import Message, NotImitated, OutputOnly, Tree
from careflow.scheduler import resource

PARENT = "projects/careflow-local/locations/us-central1"


def settable(schema: Message, path: masks.Path = ()) -> Iterator[masks.Path]:
    """Every path of the schema that a user may set, of messages and of leaves."""
    for name, node in schema.fields.items():
        if isinstance(node, OutputOnly | NotImitated) or (*path, name) == ("name",):
            continue
        yield (*path, name)
        if isinstance(node, Message):
            yield from settable(node, (*path, name))


def flat(tree: Tree, path: masks.Path = ()) -> dict[masks.Path, Any]:
    """Leaves by path; a map of strings is a leaf."""
    leaves: dict[masks.Path, Any] = {}
    for name, value in tree.items():
        here = (*path, name)
        leaves |= flat(value, here) if isinstance(value, dict) and name != "headers" else {here: value}
    return leaves


slowly = settings(deadline=None)  # the machine may be busy
PATHS = tuple(settable(resource.SCHEMA))
words = st.text("abcdefgh", min_size=1, max_size=4)
spans = st.integers(0, 10**6).map(lambda micros: f"{micros / 1000:.3f}s")


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


oidc = st.fixed_dictionaries(
    {"serviceAccountEmail": words.map(lambda word: f"{word}@example.com")}, optional={"audience": words}
)
oauth = st.fixed_dictionaries(
    {"serviceAccountEmail": words.map(lambda word: f"{word}@example.com")}, optional={"scope": words}
)


def targets(**tokens: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"uri": words.map(lambda word: f"https://{word}.example.com/")},
        optional={
            "httpMethod": st.sampled_from(["POST", "PUT", "PATCH", 1, 4, 6]),
            "headers": st.dictionaries(words, words, max_size=2),
            "body": st.sampled_from(["eA==", "eHk=", ""]),
            **tokens,
        },
    )


def bodies(**tokens: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"schedule": st.sampled_from(["15 8 * * *", "0 9 * * *"]), "httpTarget": targets(**tokens)},
        optional={
            "description": words,
            "timeZone": st.sampled_from(["UTC", "America/New_York"]),
            "attemptDeadline": st.integers(15, 1800).map(lambda seconds: f"{seconds}s"),
            "retryConfig": some(
                retryCount=st.integers(0, 5),
                maxRetryDuration=spans,
                minBackoffDuration=spans,
                maxBackoffDuration=spans,
                maxDoublings=st.integers(0, 20),
            ),
        },
    )


one_token = bodies(oidcToken=oidc)
either_token = st.one_of(bodies(oidcToken=oidc), bodies(oauthToken=oauth))
chosen_paths = st.lists(st.sampled_from(PATHS), max_size=6)


def tree(body: dict[str, Any]) -> Tree:
    return wire.read(resource.SCHEMA, body)


@slowly
@given(one_token, one_token, chosen_paths)
def test_a_leaf_is_the_bodys_where_a_path_covers_it_and_as_before_elsewhere(
    stored: dict[str, Any], body: dict[str, Any], chosen: list[masks.Path]
) -> None:
    merged = flat(masks.merge(resource.SCHEMA, tree(stored), tree(body), chosen))

    before, wanted = flat(tree(stored)), flat(tree(body))
    for path in before.keys() | wanted.keys() | merged.keys():
        covered = any(path[: len(prefix)] == prefix for prefix in chosen)
        assert merged.get(path) == (wanted if covered else before).get(path)


@slowly
@given(either_token, either_token, chosen_paths, st.randoms())
def test_the_order_of_the_paths_and_asking_twice_change_nothing(
    stored: dict[str, Any], body: dict[str, Any], chosen: list[masks.Path], order: Any
) -> None:
    once = masks.merge(resource.SCHEMA, tree(stored), tree(body), chosen)
    shuffled = list(chosen)
    order.shuffle(shuffled)

    assert masks.merge(resource.SCHEMA, tree(stored), tree(body), shuffled) == once
    assert masks.merge(resource.SCHEMA, once, tree(body), chosen) == once


@slowly
@given(either_token, either_token, chosen_paths)
def test_there_is_never_more_than_one_token(
    stored: dict[str, Any], body: dict[str, Any], chosen: list[masks.Path]
) -> None:
    merged = masks.merge(resource.SCHEMA, tree(stored), tree(body), chosen)

    assert not {"oidcToken", "oauthToken"} <= merged.get("httpTarget", {}).keys()


@slowly
@given(either_token, either_token)
def test_a_mask_of_every_field_is_as_good_as_none(stored: dict[str, Any], body: dict[str, Any]) -> None:
    job = resource.new_job(stored, PARENT, "j")
    every = [(name,) for name in ("description", "httpTarget", "schedule", "timeZone", "retryConfig")]

    masked = resource.updated_job(job, tree(body), [*every, ("attemptDeadline",)])

    assert masked == resource.updated_job(job, tree(body), None) == resource.new_job(body, PARENT, "j")


@slowly
@given(either_token, either_token, chosen_paths)
def test_the_merging_leaves_what_it_was_given_alone(
    stored: dict[str, Any], body: dict[str, Any], chosen: list[masks.Path]
) -> None:
    before, wanted = tree(stored), tree(body)

    merged = masks.merge(resource.SCHEMA, before, wanted, chosen)
    for value in merged.values():
        if isinstance(value, dict):
            value.clear()

    assert (before, wanted) == (tree(stored), tree(body))


@slowly
@given(st.sampled_from(PATHS))
def test_every_settable_path_is_taken_in_both_forms_over_rest_and_in_one_over_grpc(path: masks.Path) -> None:
    camel, snake = ".".join(path), ".".join(wire.snake(name) for name in path)

    for text in (camel, snake):
        assert masks.paths(resource.SCHEMA, [text], camel_case=True) == [path]
    assert masks.paths(resource.SCHEMA, [snake], camel_case=False) == [path]
    if camel != snake:
        with pytest.raises(Refused):
            masks.paths(resource.SCHEMA, [camel], camel_case=False)


@slowly
@given(st.text("abcHhtpT_.es *", min_size=1, max_size=12))
def test_any_other_text_is_refused(text: str) -> None:
    known = {".".join(path) for path in PATHS} | {".".join(map(wire.snake, path)) for path in PATHS}
    of_the_services = text.split(".")[0] in ("state", "status")  # ignored, whatever is within
    if text in known or of_the_services or text == masks.EVERYTHING:
        return
    with pytest.raises(Refused, match="updateMask"):
        masks.paths(resource.SCHEMA, [text], camel_case=True)


@slowly
@given(either_token)
def test_what_is_read_back_can_be_written_back(body: dict[str, Any]) -> None:
    """As gcloud, Terraform and people do: read the job, change a thing, send it all."""
    job = resource.new_job(body, PARENT, "j")
    shown = resource.render(job)

    again = resource.new_job(shown, PARENT, "other")

    assert resource.render(again) == shown


@slowly
@given(st.integers(-(10**15), 10**15))
def test_a_duration_survives_the_wire(micros: int) -> None:
    span = timedelta(microseconds=micros)

    assert wire.duration(wire.duration_text(span), "x") == span


def test_a_message_without_fields_is_gone_whatever_the_order_of_the_paths() -> None:
    stored, body = {"retryConfig": {"retryCount": 1}}, {"retryConfig": {}}
    paths: list[masks.Path] = [("retryConfig",), ("retryConfig", "retryCount")]
    for chosen in (paths, paths[::-1]):
        assert masks.merge(resource.SCHEMA, stored, body, chosen) == {}
