"""``proact report`` and ``proact token``: what Prometheus knows, in words, and how logs name a transaction."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict

import click

from services.cli.options import UserError, example, with_settings
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings


@click.command(epilog=example("proact report --prometheus-url http://127.0.0.1:9090 --json"))
@with_settings("prometheus_url")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: each query with its answers.")
def report(settings: Settings, as_json: bool) -> None:
    """Ask Prometheus what happens: decisions, latency, lag, refused records, money, costs, alerts."""
    from services.observer.questions import QUESTIONS, NoPrometheusError, ask, describe

    try:
        answers = {
            question: ask(settings.prometheus_url.reveal(), question.query, str(settings.prometheus_url))
            for question in QUESTIONS
        }
    except NoPrometheusError as error:
        raise UserError(with_remedy(error)) from None
    if as_json:
        for_machines = [
            {"question": q.text, "query": q.query, "unit": q.unit, "answers": [asdict(a) for a in found]}
            for q, found in answers.items()
        ]
        click.echo(json.dumps(for_machines))
        return
    width = max(len(question.text) for question in QUESTIONS)
    for question, found in answers.items():
        said = describe(found)
        click.echo(f"{question.text:<{width}}  {said}{'' if said == 'nothing' else ' ' + question.unit}")


@click.command(epilog=example("proact token 0b3f9a52-7c1d-4e6a-9f0e-2d4c6b8a1e3f"))
@click.argument("transaction_id")
def token(transaction_id: str) -> None:
    """Show the token that stands for a transaction in log lines, so that they can be searched for it."""
    from services.runtime.logs import transaction_token

    try:
        parsed = uuid.UUID(transaction_id)
    except ValueError:
        raise UserError(f"a transaction id is a UUID, not {transaction_id!r}") from None
    click.echo(transaction_token(parsed.bytes))
