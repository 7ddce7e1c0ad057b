"""``proact check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from services.cli.grid_stores import CONNECTION, halt_seen, open_stores
from services.cli.options import UserError, counted, example, progress, with_settings
from services.registry import BY_LOG, BY_TOPIC, service_name
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.checker.evidence import Evidence
    from services.checker.rest import Rest

EXIT_CODES: Final = {"ok": 0, "broken": 1, "not_at_rest": 3}
"""2 is a mistake in the command line."""
RECORDS_PER_S: Final = 1_600
"""How many transactions a second the checker decides, roughly: in plain Python, one by one."""


@click.command(epilog=example("proact check\n  proact check --guarantee at_least_once"))
@with_settings(*CONNECTION, "guarantee", "model_path", "models_path", "safe_challenge_from", "safe_review_from")
@click.option(
    "--forbidden", "forbidden", multiple=True, help="Text that must be nowhere in the outputs; may be said again."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The folder of a model that decided and is not released; may be said again.",
)
def check(settings: Settings, forbidden: tuple[str, ...], models: tuple[Path, ...]) -> int:
    """Prove, record by record, what the services did: run it when they are at rest.

    Reads all topics and the whole grid, decides every transaction again in plain Python that shares no code with the scorers,
    and prints one JSON object. "verdict" is

    \b
      ok           nothing is wrong                                            exit code 0
      broken       something is, at rest or not: "anomalies" has it by name    exit code 1
      not_at_rest  records come, or wait for a service that is not running:    exit code 3
                   "not_at_rest" says of which topic, how many, who is missing;
                   "anomalies" has what may come of that alone: look again at rest

    It waits up to ten seconds for what is running to come to rest. A partition that its service has halted is broken, with its reason and
    remedy. A service that never ran on this Kafka and Redis is reported in "never_ran", and nothing of it is checked.
    """  # noqa: D301 - the mark is click's: it keeps the lines as they are
    from services.checker.evidence import EvidenceError
    from services.checker.scoring import Scoring, released_folders
    from services.checker.verdict import Checker

    named = [*models, *([Path(settings.model_path)] if settings.model_path else [])]
    if absent := [one for one in named if not (one / "manifest.json").is_file()]:
        raise UserError(f"{absent[0]} is no folder of a model: it has no manifest.json")
    folders = [*released_folders(Path(settings.models_path) if settings.models_path else None), *named]
    try:
        evidence, rest = _gather(settings)
    except EvidenceError as error:
        where = f"Kafka at {settings.kafka_bootstrap_servers}, Redis at {settings.redis_url}"
        raise UserError(f"{with_remedy(error)} ({where})") from None
    repeats = settings.guarantee == "at_least_once"
    marks = [one.encode() for one in forbidden]
    safe = settings.safe_challenge_from, settings.safe_review_from
    verdict = Checker(evidence, Scoring(folders, safe), repeats=repeats, forbidden=marks).judge(progress)
    verdict.take(rest)
    for one in rest.unrest:
        progress(f"not at rest: {one}")
    click.echo(json.dumps(verdict.as_json()))
    return EXIT_CODES[verdict.word]


def estimate(transactions: int) -> str:
    """Say roughly how long the check takes of so many transactions."""
    took_s = transactions / RECORDS_PER_S
    roughly = counted(round(took_s / 60), "minute") if took_s >= 90 else counted(max(1, round(took_s)), "second")
    return f"some {counted(transactions, 'transaction')} to decide again: takes about {roughly}"


def _gather(settings: Settings) -> tuple[Evidence, Rest]:
    """Read everything, and look before and after whether it is at rest. Raises EvidenceError, UserError."""
    import time

    from services.checker.evidence import INPUTS, Where, gather
    from services.checker.rest import Group, Looker, find_rest

    with open_stores(settings, "scorer") as stores:
        # Asked by clients that say why they are not let in.
        stores.admin.partitions()
        stores.grid.status(stores.topic, [0])
    groups = {
        topic: Group(spec.name, spec.group_id(settings, topic), spec.keeps_profiles)
        for topic, spec in BY_LOG.items()
        if topic in BY_TOPIC
    }
    where = Where(settings.kafka.admin({}), settings.grid.address, settings.grid.arguments())
    looker = Looker(where, groups)
    before = looker.settle(time.sleep)
    progress(estimate(sum(p.end - p.start for p in before.positions[INPUTS].values())))
    pair = (settings.group_id, settings.router_group_id)
    evidence = gather(where, pair, progress)
    after = looker.look()
    return evidence, find_rest(before, after, evidence, groups, _halts(settings))


def _halts(settings: Settings) -> dict[tuple[str, int], str]:
    """Return why services leave partitions alone, as far as it can be seen from outside, with what helps. Raises UserError."""
    found = {}
    for topic in BY_TOPIC:  # what is archived is compared by `proact lake check`
        with open_stores(settings, service_name(topic)) as stores:
            for p, (state, held) in stores.look(None).items():
                halt = halt_seen(state, held)
                if halt is not None:
                    found[topic, p] = f"{halt}; {halt.remedy(topic, p)}"
    return found
