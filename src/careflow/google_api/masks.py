"""Update masks (google.protobuf.FieldMask): which fields of a resource an update replaces, and the replacing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

from careflow.google_api.refusals import Code, Refused
from careflow.google_api.wire import Message, NotImitated, OutputOnly, Tree, snake

Path: TypeAlias = tuple[str, ...]

EVERYTHING = "*"


def paths(
    schema: Message, mask: Iterable[str], *, camel_case: bool, resource: str = "job"
) -> Sequence[Path] | None:
    """The paths that the mask names, in camelCase; None when it names none and everything is meant.

    Names are taken in snake_case, over REST (`camel_case`) in both forms. Output-only fields are left out: a mask of nothing
    else changes nothing. Raises Refused for a path that the resource has not (or not here).
    """
    texts = [text for text in mask if text]
    if not texts or EVERYTHING in texts:
        return None
    found = [_path(schema, text, camel_case, resource) for text in texts]
    return [path for path in found if path]


def _path(schema: Message, text: str, camel_case: bool, resource: str) -> Path | None:
    """None for what is the service's to set."""
    node: Any = schema
    path: list[str] = []
    for segment in text.split("."):
        name = node.names.get(segment) if isinstance(node, Message) else None
        if name is None or (segment != snake(name) and not camel_case):
            raise _unknown(text, resource)
        node = node.fields[name]
        path.append(name)
        if isinstance(node, OutputOnly):
            return None
        if isinstance(node, NotImitated):
            raise Refused(Code.INVALID_ARGUMENT, f"updateMask: {text!r}: {node.why}", field="updateMask")
    return tuple(path)


def _unknown(text: str, resource: str) -> Refused:
    return Refused(
        Code.INVALID_ARGUMENT,
        f"Invalid mask for {resource.capitalize()}: {text[:200]} (updateMask takes names of a {resource}'s fields,"
        " nested ones like retry_config.retry_count; over REST also in camelCase)",
        field="updateMask",
    )


def merge(schema: Message, stored: Tree, body: Tree, chosen: Iterable[Path]) -> Tree:
    """`stored` with every chosen path as it is in `body`; what the body lacks is reset, and a message emptied by that is gone.

    Setting one of a group of alternatives removes the others, as in a message on the wire.
    """
    merged = deepcopy(stored)
    for path in chosen:
        value = _get(body, path)
        if value is None:
            _remove(merged, path)
        else:
            _put(schema, merged, path, deepcopy(value))
    _drop_empty(schema, merged)
    return merged


def _drop_empty(schema: Message, tree: Tree) -> None:
    """A message without fields is no message: whether one was set before or after its fields makes no difference."""
    for name, inner in schema.fields.items():
        if isinstance(inner, Message) and name in tree:
            _drop_empty(inner, tree[name])
            if not tree[name]:
                del tree[name]


def _get(tree: Tree, path: Path) -> Any:
    node: Any = tree
    for name in path:
        node = node.get(name)
        if node is None:
            return None
    return node


def _put(schema: Message, tree: Tree, path: Path, value: Any) -> None:
    name, rest = path[0], path[1:]
    for group in schema.one_of:
        if name in group:
            for other in group - {name}:
                tree.pop(other, None)
    if not rest:
        tree[name] = value
        return
    inner = schema.fields[name]
    if isinstance(inner, Message):
        _put(inner, tree.setdefault(name, {}), rest, value)


def _remove(tree: Tree, path: Path) -> None:
    name, rest = path[0], path[1:]
    if not rest:
        tree.pop(name, None)
    elif name in tree:
        _remove(tree[name], rest)
