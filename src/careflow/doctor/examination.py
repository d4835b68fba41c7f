"""Running the checks: side by side, each after those it needs; none raises, none takes long, and no failure hides another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from careflow.doctor.findings import Examined, Finding, Report, not_seen, wrong
from careflow.doctor.set_up import SetUp
from careflow.errors import CareflowError

LONGEST_SECONDS = 5.0  # of a check, in real time: the chains of checks are at most two long


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question to a set-up.

    `needs` are names of checks before it, none of which has a `when`; `writes` says what it leaves behind, empty for nothing.
    Where `when` is false there is nothing to ask, and the check is not in the report.
    """

    name: str
    about: str
    run: Callable[[SetUp], AsyncIterator[Finding]]
    needs: tuple[str, ...] = ()
    writes: str = ""
    when: Callable[[SetUp], bool] = lambda _set_up: True


async def examine(set_up: SetUp, checks: Sequence[Check], *, longest: float = LONGEST_SECONDS) -> Report:
    """What all of them find, in their order. `longest` is the time of one check in real seconds."""
    under_way: dict[str, asyncio.Task[Examined]] = {}
    for check in checks:
        if not check.when(set_up):
            continue
        needed = {name: under_way[name] for name in check.needs}
        under_way[check.name] = asyncio.create_task(_examined(check, set_up, needed, longest))
    return Report([await one for one in under_way.values()])


def unexamined(checks: Sequence[Check], first: Examined, why: str) -> Report:
    """The report of a set-up of which only `first` can be told, for the reason `why`."""
    rest = [
        _result(check, [not_seen(check.name, why, blocks=True)])
        for check in checks
        if check.name != first.check
    ]
    return Report([first, *rest])


async def _examined(
    check: Check, set_up: SetUp, needed: Mapping[str, asyncio.Task[Examined]], longest: float
) -> Examined:
    blocked = [name for name, task in needed.items() if (await task).blocked]
    if blocked:
        why = f"needs {', '.join(blocked)}, which could not be examined to the end"
        return _result(check, [not_seen(check.name, why, blocks=True)])
    found: list[Finding] = []
    try:
        async with asyncio.timeout(longest):
            async for one in check.run(set_up):
                found.append(one)  # noqa: PERF401 - what came before the time is up stays
    except TimeoutError:
        found.append(
            wrong(
                check.name,
                f"no answer within {longest:g} s",
                "What this check asks is very slow or does not answer; what was found before is above.",
                blocks=True,
            )
        )
    except ImportError as error:
        found.append(_lacking(check, error))
    except CareflowError as error:
        # Ours hold ids alone.
        found.append(wrong(check.name, str(error), "The check could not be carried out.", blocks=True))
    except Exception as error:  # noqa: BLE001 - a check never raises; a stranger's words may be a patient's
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else ""
        found.append(
            wrong(
                check.name,
                f"the check itself failed with {type(error).__name__}",
                "A defect of careflow doctor, or an answer that nobody expected; the other checks stand.",
                blocks=True,
                place=place,
            )
        )
    return _result(check, found)


def _lacking(check: Check, error: ImportError) -> Finding:
    from careflow.cli.missing import missing

    lacking = missing(error)
    return wrong(
        check.name,
        str(lacking) if lacking else f"the module {error.name} cannot be imported",
        "The check needs a package that is not installed here.",
        "pip install 'careflow-pulse[local,gcp]'",
        blocks=True,
    )


def _result(check: Check, findings: Sequence[Finding]) -> Examined:
    wrote = "" if any(one.blocks for one in findings) else check.writes
    return Examined(check=check.name, about=check.about, writes=wrote, findings=findings)
