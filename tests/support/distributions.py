"""What pyproject.toml asks for, what a lock holds, whose a module is, and what a part of careflow imports."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
UNITS: Mapping[str, Sequence[str]] = PROJECT["tool"]["careflow"]["units"]
_ENTRY = re.compile(
    r"^([A-Za-z0-9._-]+)==([^\s;]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def locked(name: str) -> dict[str, str]:
    """Distribution -> version of requirements/NAME.txt. Anything in it but hash-pinned entries and comments is an error."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    rest = re.sub(r"^(#.*)?\n", "", _ENTRY.sub("", text), flags=re.MULTILINE)
    assert rest == "", f"requirements/{name}.txt: not a version with hashes: {rest[:200]!r}"
    return {canonicalize_name(name): version for name, version, _ in _ENTRY.findall(text)}


def asked(extras: Sequence[str] = ()) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    project = PROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    return [Requirement(line) for line in lines]


def needed(requirements: Sequence[Requirement]) -> set[str]:
    """The distributions that these ask for, and what those ask for in turn, here and now."""
    done: set[tuple[str, str]] = set()
    todo = [(one, extra) for one in requirements for extra in ("", *one.extras)]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for line in distribution(name).requires or ():
            inner = Requirement(line)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                todo += [(inner, wanted) for wanted in ("", *inner.extras)]
    return {name for name, _ in done}


@cache
def owners() -> Mapping[str, str]:
    """Module -> the distribution that it is installed from. Namespaces that several share belong to nobody."""
    found = {}
    for one in distributions():
        name = canonicalize_name(one.metadata["Name"])
        for file in one.files or ():
            parts = file.parts
            if (
                file.suffix not in (".py", ".so")
                or not parts
                or parts[0] == ".."
                or not parts[-1].split(".")[0]
            ):
                continue
            stem = parts[-1].split(".")[0]
            module = parts[:-1] if stem == "__init__" else (*parts[:-1], stem)
            found[".".join(module)] = name
    return found


def owner(module: str) -> str | None:
    """The distribution of a module or of a name in it; None for what no distribution has."""
    names = module.split(".")
    for length in range(len(names), 0, -1):
        if found := owners().get(".".join(names[:length])):
            return found
    return None


def imports(roots: Sequence[str], *, without: Sequence[str] = ()) -> tuple[set[str], set[str]]:
    """The modules of careflow that these reach, and what all of them import from elsewhere; for type checking alone does not
    count, nor do the packages in `without`."""
    reached: set[str] = set()
    foreign: set[str] = set()
    todo = list(roots)
    while todo:
        module = todo.pop()
        if module in reached or any(module == one or module.startswith(f"{one}.") for one in without):
            continue
        path = _file(module)
        if path is None:
            continue  # a name in a module, which was reached by itself
        reached.add(module)
        for name in _imported(path, module):
            if name.split(".")[0] == "careflow":
                todo += [".".join(name.split(".")[:length]) for length in range(1, name.count(".") + 2)]
            else:
                foreign.add(name)
    return reached, foreign


def _file(module: str) -> Path | None:
    path = SOURCE.joinpath(*module.split("."))
    for one in (path / "__init__.py", path.with_suffix(".py")):
        if one.is_file():
            return one
    return None


def _imported(path: Path, module: str) -> Iterator[str]:
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise):
                todo += otherwise
                continue
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(source), names=names, level=0):
                yield source
                yield from (f"{source}.{alias.name}" for alias in names)
        todo += ast.iter_child_nodes(node)
