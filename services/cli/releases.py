"""The commands of ``proact models`` that release a model while transactions flow, and take it back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.options import UserError, example, interruptible, person, progress, with_settings
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.codec.model_releases import ModelRelease
    from services.rulebook.releases import ModelReleases

NO_WORKER: Final = 3
"""The exit code where nobody was there to run a release: neither done nor refused."""
_STAGES: Final = ("shadow", "canary", "live")
_KAFKA = with_settings("kafka_bootstrap_servers")
_PROPOSING = with_settings("kafka_bootstrap_servers", "models_path", "four_eyes")
_AUTHOR = click.option("--author", default=None, help="Who does this; the user's name if left out.")
_REASON = click.option("--reason", default="", help="Why; kept with the release.")
_WAIT = click.option(
    "--wait-s", default=30.0, show_default=True, type=click.FloatRange(0, 600), help="How long to wait for the workers."
)


def _guards(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, meaning in (
        ("--latency-max-ms", "A canary's guard: how much longer than the live model's a batch may take, in the mean."),
        ("--error-share-max", "A canary's guard: the most of its batches that may raise an exception.  [default: 0]"),
        ("--score-shift-max", "A canary's guard: the most that its scores may differ (population stability index)."),
        ("--alert-share-max", "A canary's guard: the most of its decisions that may be other than APPROVE."),
    ):
        command = click.option(flag, default=None, type=click.FloatRange(0), help=meaning)(command)
    return command


@click.command(
    epilog=example(
        "proact models release fraud/v5 --stage shadow --reason 'eight more weeks'\n"
        "  proact models release fraud/v5 --stage canary --share 0.05 --alert-share-max 0.03"
    )
)
@_PROPOSING
@click.argument("model")
@click.option("--stage", required=True, type=click.Choice(_STAGES), help="shadow decides nothing; canary for a share.")
@click.option("--share", default=0.0, type=click.FloatRange(0, 1), help="Of the cards that a canary decides on.")
@click.option("--rules", "rule_set_version", default=None, type=click.IntRange(1), help="Rules of a shadow's own.")
@_guards
@_REASON
@_AUTHOR
@_WAIT
def release(settings: Settings, model: str, stage: str, wait_s: float, author: str | None, **step: Any) -> None:
    """Ask for MODEL, such as fraud/v5, to score in the shadow, to decide for a share of the cards, or to be live.

    The shadow begins at once. What changes decisions waits until another person approves it (`proact models approve`), unless four_eyes is
    false. Exit code 1: a worker cannot run it, or does not say that it does; 3: no worker is there. The last line is JSON.
    """
    _ask(settings, model, stage, author, step | {"wait_s": wait_s})


@click.command(epilog=example("proact models promote fraud/v5 --reason 'a week as canary, +0.04 of recall'"))
@_PROPOSING
@click.argument("model")
@_REASON
@_AUTHOR
@_WAIT
def promote(settings: Settings, model: str, reason: str, author: str | None, wait_s: float) -> None:
    """Ask for MODEL, such as fraud/v5, to be live for all cards; as `release --stage live`."""
    step = {"share": 0.0, "rule_set_version": None, "reason": reason, "wait_s": wait_s}
    step |= dict.fromkeys(("alert_share_max", "score_shift_max", "error_share_max", "latency_max_ms"))
    _ask(settings, model, "live", author, step)


def _ask(settings: Settings, model: str, stage: str, author: str | None, given: dict[str, Any]) -> None:
    from services.codec.model_releases import Guards, ReleaseError, Stage
    from services.decision.model_loader import models_root
    from services.decision.release_loading import files_of
    from services.inference import ModelError
    from services.inference.released import folder_of
    from services.rulebook.releases import Step, asked

    begun_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    # A canary that raises exceptions is of no use to anybody: that one is guarded without being asked for.
    errors = 0.0 if given["error_share_max"] is None and stage == "canary" else given["error_share_max"]
    try:
        guards = Guards(given["alert_share_max"], given["score_shift_max"], errors, given["latency_max_ms"])
        step = Step(
            model, Stage[stage.upper()], person(author), given["reason"], given["share"], guards,
            given["rule_set_version"],
        )  # fmt: skip
        folder = folder_of(model, models_root(settings))
        book = _book(settings)
        wanted = asked(book.log, step, lambda: (model, files_of(folder)), now_ms, four_eyes=settings.four_eyes)
    except (ReleaseError, ModelError) as error:
        raise UserError(str(error)) from None
    _guarded(lambda: book.announce(wanted))
    if wanted.proposed is not None:
        progress(f"{model} waits: another person puts it to {stage} with `proact models approve {model}`")
        click.echo(json.dumps({"release": model, "stage": wanted.stage.name, "waits_for_approval": stage.upper()}))
        return
    _await(book, wanted, begun_s, given["wait_s"])


@click.command(epilog=example("proact models approve fraud/v5"))
@_KAFKA
@click.argument("model")
@_AUTHOR
@_WAIT
def approve(settings: Settings, model: str, author: str | None, wait_s: float) -> None:
    """Approve what another person asked for MODEL, such as fraud/v5, and wait until every worker does it; exit codes as of `release`."""
    from services.rulebook.releases import approved

    _take(settings, lambda book, now_ms: approved(book.log, model, person(author), now_ms), wait_s)


@click.command(epilog=example("proact models rollback --reason 'too many challenges'"))
@_KAFKA
@click.argument("model", required=False)
@_REASON
@_AUTHOR
@_WAIT
def rollback(settings: Settings, model: str | None, reason: str, author: str | None, wait_s: float) -> None:
    """Take MODEL back, whatever its stage; the live one if none is named. What was live before it decides again. One person may."""
    from services.rulebook.releases import taken_back

    who = person(author)
    _take(settings, lambda book, now_ms: taken_back(book.log, model, who, reason, now_ms), wait_s)


def _take(settings: Settings, step: Callable[[ModelReleases, int], ModelRelease], wait_s: float) -> None:
    from services.codec.model_releases import ReleaseError

    begun_s, book = time.monotonic(), _book(settings)
    try:
        wanted = step(book, time.time_ns() // 1_000_000)
    except ReleaseError as error:
        raise UserError(str(error)) from None
    _guarded(lambda: book.announce(wanted))
    _await(book, wanted, begun_s, wait_s)


@click.command(epilog=example("proact models status --json"))
@_KAFKA
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(settings: Settings, as_json: bool) -> None:
    """Show which models are released, what waits for approval, and which worker runs what."""
    book = _book(settings)
    acks = _guarded(book.acks)
    live = book.log.wanted.live
    if as_json:
        click.echo(json.dumps(_as_json(book, acks)))
        return
    for one in reversed(book.log.in_order):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.since_ms / 1000))
        stage = f"{one.stage.name} {one.share:.1%}" if one.share else one.stage.name
        if one.stage.name == "LIVE" and one is not live:
            stage = "LIVE before"
        by = f"{one.author}, approved by {one.approved_by}" if one.approved_by else one.author
        click.echo(f"{one.release:20} {stage:14} since {when}  {by}  {one.reason}".rstrip())
        if one.proposed is not None:
            click.echo(f"{'':20} waits to be {one.proposed.stage.name}: asked for by {one.proposed.author}")
    click.echo("no release is live: the model of the settings decides" if live is None else f"{live.release} is live")
    for ack in acks:
        beside = [
            *([f"{ack.canary} for {ack.share:.1%}"] if ack.canary else []),
            *(f"{s} in the shadow" for s in ack.shadows),
        ]
        click.echo(f"  {ack.worker:40} runs {', '.join([ack.live or 'no model', *beside])}")
        for name, why in sorted(ack.refused.items()):
            click.echo(f"  {'':40} cannot run {name}: {why}")


def _as_json(book: ModelReleases, acks: list[Any]) -> dict[str, Any]:
    live = book.log.wanted.live
    return {
        "live": None if live is None else live.release,
        "releases": [
            {
                "release": one.release, "stage": one.stage.name, "share": one.share, "since_ms": one.since_ms,
                "author": one.author, "approved_by": one.approved_by, "reason": one.reason,
                "waits_for_approval": None if one.proposed is None else one.proposed.stage.name,
            }
            for one in book.log.in_order
        ],
        "workers": [{name: getattr(ack, name) for name in ack.__slots__} for ack in acks],
    }  # fmt: skip


def _book(settings: Settings) -> ModelReleases:
    from services.rulebook.releases import ModelReleases
    from services.runtime.clock import SystemClock

    book: ModelReleases = _guarded(lambda: ModelReleases(settings.kafka, SystemClock()))
    return book


def _guarded(call: Callable[[], Any]) -> Any:
    from services.streams import StreamsError

    try:
        return call()
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None


def _await(book: ModelReleases, wanted: ModelRelease, begun_s: float, wait_s: float) -> None:
    with interruptible():
        done, waiting, refused = _guarded(lambda: book.wait(wanted, wait_s))
    for worker, why in refused.items():
        progress(f"{worker} cannot run it: {why}")
    for worker in waiting:
        progress(f"{worker} has not said that it runs it")
    found = {"release": wanted.release, "stage": wanted.stage.name, "workers": len(done), "waiting": len(waiting)}
    click.echo(json.dumps(found | {"refused": len(refused), "took_s": round(time.monotonic() - begun_s, 2)}))
    if refused or waiting:
        raise SystemExit(1)
    if not done:
        progress(f"{wanted.release} is {wanted.stage.name}, but no worker runs: the next one that starts will do it")
        raise SystemExit(NO_WORKER)
