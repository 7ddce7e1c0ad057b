"""``proact check``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from services.commands.options import UserError, example, progress, with_settings
from services.runtime.config import Settings


@click.command(epilog=example("proact check\n  proact check --guarantee at_least_once"))
@with_settings(
    "kafka_bootstrap_servers",
    "redis_url",
    "group_id",
    "guarantee",
    "model_path",
    "safe_challenge_from",
    "safe_review_from",
)
@click.option(
    "--canary", "canaries", multiple=True, help="Text that must be nowhere in the outputs; may be said again."
)
def check(settings: Settings, canaries: tuple[str, ...]) -> int:
    """Prove, record by record, what the scorers did: run it when they are at rest.

    Reads all topics and the whole grid, decides every transaction again in plain Python that shares no code with the scorers,
    and prints one JSON object: "verdict" is "ok" or "broken", with every anomaly by its name and its first witnesses. The exit
    code is 1 if something is wrong.
    """
    from services.checker.evidence import EvidenceError, gather
    from services.checker.scoring import released_folders
    from services.checker.verdict import Checker

    groups = (settings.group_id, settings.router_group_id)
    try:
        evidence = gather(settings.kafka_bootstrap_servers, settings.redis_url.reveal(), groups, progress)
    except EvidenceError as error:
        raise UserError(
            f"{error} (Kafka at {settings.kafka_bootstrap_servers}, Redis at {settings.redis_url})"
        ) from None
    repeats = settings.guarantee == "at_least_once"
    marks = [canary.encode() for canary in canaries]
    folders = [*released_folders(), *([Path(settings.model_path)] if settings.model_path else [])]
    safe = settings.safe_challenge_from, settings.safe_review_from
    verdict = Checker(evidence, folders, repeats=repeats, canaries=marks, safe=safe).judge(progress)
    click.echo(json.dumps(verdict.as_json()))
    return int(not verdict.holds)
