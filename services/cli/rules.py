"""``proact rules``: what analysts do with rules."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from services.cli.options import UserError, example, interruptible, person, progress, with_settings
from services.core.rules.rule_set import RuleInRuleSetError, RuleSet, read_rule_set
from services.core.rules.syntax import RuleError
from services.core.rules.vocabulary import VARIABLES
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.rulebook.book import Rulebook

DOCUMENT_BYTES_MAX = 1_000_000
NO_SCORER = 3
"""The exit code where nobody was there to run a version: neither done nor refused."""
_KAFKA = with_settings("kafka_bootstrap_servers")
_CHANGING = with_settings("kafka_bootstrap_servers", "reassessor_group_id", "four_eyes")
_AUTHOR = click.option("--author", default=None, help="Who does this; the user's name if left out.")
_WAIT = click.option(
    "--wait-s", default=10.0, show_default=True, type=click.FloatRange(0, 600), help="How long to wait for the workers."
)
_NO_WAIT = click.option(
    "--no-wait", is_flag=True, help="Wait for nobody: for rules that are to be there before the scorers are."
)


@click.group(epilog=example("proact rules check rules.yaml && proact rules apply rules.yaml"))
def rules() -> None:
    """Rules that analysts write: check them, test them on history, put them live, take them back."""


def read_file(path: Path) -> RuleSet:
    """Read and check a file of rules. Raises UserError, which says where it is wrong."""
    try:
        raw = path.read_bytes()
        if len(raw) > DOCUMENT_BYTES_MAX:
            raise UserError(f"{path} has {len(raw):,} bytes, more than {DOCUMENT_BYTES_MAX:,}")
        return read_rule_set(yaml.safe_load(raw))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except RuleError as error:
        raise UserError(_reported(path, error)) from None


def _reported(path: Path, error: RuleError) -> str:
    said = f"{path}: {error}"
    if isinstance(error, RuleInRuleSetError):
        begin = max(0, error.at - 60)
        shown = error.rule.when[begin : error.at + 30].replace("\n", " ")
        said += f"\n  {shown}\n  {' ' * (error.at - begin)}^"
    return said + (f"\n  {error.hint}" if error.hint else "")


def _book(settings: Settings) -> Rulebook:
    from services.rulebook.book import Rulebook
    from services.runtime.clock import SystemClock
    from services.streams import StreamsError

    try:
        return Rulebook(settings.kafka, SystemClock())
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None


@rules.command(epilog=example("proact rules names | grep amount"))
def names() -> None:
    """Print what an expression can name."""
    for variable in VARIABLES.values():
        click.echo(f"{variable.name:42} {variable.kind.value:15} {variable.meaning}")


@rules.command(epilog=example("proact rules check rules.yaml"))
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a file of rules: names, types, limits."""
    rule_set = read_file(file)
    entries = sum(len(one.entries) for one in rule_set.lists)
    click.echo(f"{file}: {len(rule_set.rules)} rules, {len(rule_set.lists)} lists with {entries} entries: all well")


@rules.command(epilog=example("proact rules apply rules.yaml"))
@_CHANGING
@click.argument("file", type=click.Path(path_type=Path))
@_AUTHOR
@_WAIT
@_NO_WAIT
def apply(settings: Settings, file: Path, author: str | None, wait_s: float, no_wait: bool) -> None:
    """Save a file of rules as the next version, which waits until another person approves it.

    With four_eyes = false it goes live at once, and every worker is waited for. Exit code 1: a worker cannot run it, or does not say that
    it does; 3: no scorer is there. The last line is JSON.
    """
    rule_set, book = read_file(file), _book(settings)
    begin_s = time.monotonic()
    version = _guarded(lambda: book.save(rule_set, person(author)))
    if settings.four_eyes and not book.log.saved[version]["approved_by"]:
        progress(f"version {version} waits: another person puts it live with `proact rules approve {version}`")
        click.echo(json.dumps({"version": version, "waits_for_approval": True}))
        return
    _guarded(lambda: book.put_live(version, person(author)))
    _await(book, version, begin_s, None if no_wait else (wait_s, settings.reassessor_group_id))


@rules.command(epilog=example("proact rules approve 7"))
@_CHANGING
@click.argument("version", type=click.IntRange(1))
@_AUTHOR
@_WAIT
@_NO_WAIT
def approve(settings: Settings, version: int, author: str | None, wait_s: float, no_wait: bool) -> None:
    """Put a saved VERSION live that another person wrote, and wait until every worker runs it; exit codes as of `apply`."""
    book, begin_s, who = _book(settings), time.monotonic(), person(author)
    saved = book.log.saved.get(version)
    if saved is None:
        raise UserError(f"version {version} was never saved; there are {sorted(book.log.saved) or 'none'}")
    if settings.four_eyes and saved["author"] == who:
        raise UserError(f"{who} saved version {version}: another person approves it (four_eyes)")
    _guarded(lambda: book.put_live(version, who))
    _await(book, version, begin_s, None if no_wait else (wait_s, settings.reassessor_group_id))


@rules.command(epilog=example("proact rules rollback"))
@_CHANGING
@click.option(
    "--to", "version", default=None, type=click.IntRange(0), help="Which version; 0: no rules. Else the one before."
)
@_AUTHOR
@_WAIT
@_NO_WAIT
def rollback(settings: Settings, version: int | None, author: str | None, wait_s: float, no_wait: bool) -> None:
    """Put an earlier version live again, and wait until every worker runs it; exit codes as of `apply`."""
    book, begin_s = _book(settings), time.monotonic()
    wanted = book.before(approved=settings.four_eyes) if version is None else version
    if wanted and wanted not in book.log.saved:
        raise UserError(f"version {wanted} was never saved; there are {sorted(book.log.saved) or 'none'}")
    if version is None and not wanted and len(book.log.saved) > 1:
        raise UserError("no version before the live one was ever approved: name one with --to, 0 for no rules")
    if settings.four_eyes and wanted and not book.log.saved[wanted]["approved_by"]:
        raise UserError(
            f"version {wanted} was never live: another person approves it with `proact rules approve {wanted}`"
        )
    _guarded(lambda: book.put_live(wanted, person(author)))
    _await(book, wanted, begin_s, None if no_wait else (wait_s, settings.reassessor_group_id))


def _guarded(call: Any) -> Any:
    from services.streams import StreamsError

    try:
        return call()
    except StreamsError as error:
        raise UserError(with_remedy(error)) from None


def _await(book: Rulebook, version: int, begin_s: float, wait: tuple[float, str] | None) -> None:
    """Wait so long for the workers, of which a group's decide nothing, or for nobody; the last line is JSON."""
    if wait is None:
        progress(f"version {version} is live for whoever runs; nobody was waited for")
        click.echo(json.dumps({"version": version, "workers": None, "waiting": None, "took_s": 0.0}))
        return
    with interruptible():
        done = _guarded(lambda: book.wait(version, *wait))
    took_s = round(time.monotonic() - begin_s, 2)
    for worker, why in done.refused.items():
        progress(f"{worker} cannot run it: {why}")
    for worker in done.waiting:
        progress(f"{worker} has not said that it runs it")
    click.echo(
        json.dumps({"version": version, "workers": len(done.running), "waiting": len(done.waiting), "took_s": took_s})
    )
    if done.refused or done.waiting:
        raise SystemExit(1)
    if not done.scorers:
        progress(
            f"version {version} is saved and live, but no scorer runs: the next one that starts will run it, or say why not "
            "(proact rules status)"
        )
        raise SystemExit(NO_SCORER)


@rules.command(epilog=example("proact rules status"))
@_KAFKA
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(settings: Settings, as_json: bool) -> None:
    """Show which version is live, and which worker runs what."""
    book = _book(settings)
    acks = _guarded(book.acks)
    now_ms = time.time_ns() // 1_000_000
    live, saved = book.log.live, book.log.saved
    if as_json:
        refused = None if book.log.refused is None else dict(zip(("version", "error"), book.log.refused, strict=True))
        workers = [{name: getattr(ack, name) for name in ack.__slots__} for ack in acks]
        click.echo(json.dumps({"live": live, "saved": sorted(saved), "refused": refused, "workers": workers}))
        return
    for version in sorted(saved):
        said = saved[version]
        mark = "live" if version == live else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(said["at_ms"] / 1000))
        click.echo(f"version {version:>4}  {when}  {said['author']:12} {len(said['rules']):>3} rules  {mark}".rstrip())
    click.echo("no rules are live" if not live else f"version {live} is live")
    if book.log.refused is not None:
        click.echo("version {} was put live and is not taken: {}".format(*book.log.refused))
    for ack in acks:
        silent_s = (now_ms - ack.heard_ms) / 1000
        state = "" if ack.version == live else f"  not the live one{': ' + ack.error if ack.error else ''}"
        click.echo(f"  {ack.worker:40} runs {ack.version}, heard {silent_s:.0f} s ago{state}")


@rules.command(epilog=example("proact rules show 3 > rules.yaml"))
@_KAFKA
@click.argument("version", required=False, type=click.IntRange(1))
def show(settings: Settings, version: int | None) -> None:
    """Print a version as a file of rules; the live one if none is named."""
    from services.rulebook.document import document_of

    book = _book(settings)
    wanted = book.log.live if version is None else version
    if wanted not in book.log.saved:
        raise UserError(f"version {wanted} was never saved" if wanted else "no rules are live: name a version")
    click.echo(yaml.safe_dump(document_of(book.log.saved[wanted]), sort_keys=False, allow_unicode=True), nl=False)


@rules.command(
    epilog=example(
        "proact rules backtest rules.yaml --data ../shared/data/handbook/transactions.parquet --mapping handbook"
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data", default=None, type=click.Path(path_type=Path), help="A Parquet or CSV file; without it, simulated data."
)
@click.option(
    "--mapping",
    default="proact",
    show_default=True,
    help="The file's mapping: proact, handbook, or a YAML file's path.",
)
@click.option(
    "--model",
    default=None,
    type=click.Path(path_type=Path),
    help="The model beside the rules; else the live one.",
)
@click.option(
    "--warm-up-days", default=30, show_default=True, type=click.IntRange(0), help="Days that only fill the windows."
)
def backtest(file: Path, data: Path | None, mapping: str, model: Path | None, warm_up_days: int) -> None:
    """Try a file of rules on history, by the code that runs them live: hits, precision, recall, money stopped, good sales lost.

    The last line is JSON.
    """
    from services.cli.train import history_of
    from services.inference import ModelError
    from services.inference.artifact import load_model
    from services.inference.released import live_model
    from services.offline.trainer.backtest import run_backtest

    rule_set = read_file(file)
    try:
        history = history_of(data, mapping, 2_000, 60, 7)
        found = run_backtest(rule_set, load_model(model or live_model()), history, warm_up_days, progress)
    except (ModelError, ValueError) as error:
        raise UserError(with_remedy(error)) from None
    click.echo(found.table())
    click.echo(json.dumps(found.as_json()))
