"""Who is who in a roster of simulated patients: a seeded mix of personas, mostly well."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from careflow.lab.personas import Persona, Subscriber

_ALL_FROM = 20  # so many patients, and every persona occurs
_SPECIAL = tuple(persona for persona in Persona if persona not in (Persona.WELL, Persona.SPANISH))


def assign_personas(patients: Sequence[tuple[str, str, int, str]], seed: int) -> list[Subscriber]:
    """A subscriber for every (phone, given name, birth year, language), in their order.

    Spanish speakers are `spanish` unless they are one of the special cases. With 20 patients or more every persona occurs at
    least once: if nobody speaks Spanish, somebody does all the same, whatever the roster says. Fewer patients get a part of
    the personas. Of 20 or more, one who is well misses the first call and takes the second.
    """
    rng = Random(f"{seed}:fleet")
    count = len(patients)
    order = list(range(count))
    rng.shuffle(order)
    spanish = [place for place in order if patients[place][3].startswith("es")]
    english = [place for place in order if place not in set(spanish)]
    personas = [Persona.WELL] * count
    for place in spanish:
        personas[place] = Persona.SPANISH
    special = list(_SPECIAL)
    rng.shuffle(special)
    if count < _ALL_FROM:
        special = special[: count // 3]
    # The special cases go to English speakers first, so that `spanish` keeps at least one.
    for place, persona in zip(english + spanish[1:], special, strict=False):
        personas[place] = persona
    if count >= _ALL_FROM and Persona.SPANISH not in personas:
        personas[next(place for place in english if personas[place] is Persona.WELL)] = Persona.SPANISH
    late = next((place for place in english if personas[place] is Persona.WELL), None)
    return [
        Subscriber(
            phone=phone,
            persona=personas[place],
            given_name=given_name,
            birth_year=birth_year,
            language="es" if language.startswith("es") or personas[place] is Persona.SPANISH else "en",
            seed=rng.getrandbits(32),
            answers_on_attempt=2 if place == late and count >= _ALL_FROM else 1,
        )
        for place, (phone, given_name, birth_year, language) in enumerate(patients)
    ]
