"""Writes the values of scheduler/terraform from what infra/ made: `scheduler_vars.py staging.outputs.json [prod.outputs.json]`.

Reads what `terraform output -json` said in each environment, prints an env.tfvars. Needs Python alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ENVIRONMENTS = ("prod", "staging")
SHARED = ("project_name", "region", "pulse_agent_service_name", "timezone")  # one value for both

# What stands for an environment that is not there yet. `environments` leaves it out, so nothing is made of it.
ABSENT = {
    "prod": ("careflow-prod-000000", "https://careflow-agent-000000000000.us-central1.run.app"),
    "staging": ("careflow-staging-000000", "https://careflow-agent-000000000001.us-central1.run.app"),
}


def values_of(outputs: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """The variables of scheduler/terraform. Raises ValueError when the environments do not go together."""
    by_environment = {one["environment"]: one for one in outputs}
    if not by_environment or len(by_environment) != len(outputs):
        raise ValueError("one file of outputs for each environment, and at least one")
    for name in SHARED:
        found = {one[name] for one in outputs}
        if len(found) > 1:
            raise ValueError(f"{name} differs between the environments: {', '.join(sorted(found))}")

    def of(environment: str) -> tuple[str, str]:
        there = by_environment.get(environment)
        return (there["project_id"], there["pulse_agent_url"]) if there else ABSENT[environment]

    return {
        "environments": sorted(by_environment),
        **{f"{environment}_project_id": of(environment)[0] for environment in ENVIRONMENTS},
        **{name: outputs[0][name] for name in SHARED},
        "pulse_agent_urls": {environment: of(environment)[1] for environment in ENVIRONMENTS},
    }


def read(path: Path) -> Mapping[str, str]:
    """What one environment has for the scheduler. Raises ValueError naming the file when it is not there yet."""
    try:
        found: Mapping[str, str] = json.loads(path.read_text())["scheduler"]["value"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no output `scheduler`: make apply, then make output") from error
    return found


def as_tfvars(values: Mapping[str, object]) -> str:
    """The values as a file of Terraform's; JSON's strings, lists and objects are expressions there too."""
    lines = ["# Written by infra/scheduler_vars.py from the outputs of infra/."]
    return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]) + "\n"


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.stderr.write(f"{(__doc__ or '').strip()}\n")
        return 2
    try:
        sys.stdout.write(as_tfvars(values_of([read(Path(name)) for name in arguments])))
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"scheduler_vars.py: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
