"""``proact explain``: one decision made again from the log and the lake."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from services.cli.explain_records import DecisionRef
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.auditor.explanation import DecisionCase

_PLACE = re.compile(r"(\d{1,9})/(\d{1,18})")


@click.command(epilog=example("proact explain 8a6e0804-2bd0-4672-b79d-d97027f9071a\n  proact explain 3/1042 --json"))
@with_settings(
    "lake_url", "kafka_bootstrap_servers", "model_path", "models_path", "safe_challenge_from", "safe_review_from"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
@click.argument("transaction")
def explain(settings: Settings, as_json: bool, transaction: str) -> int:
    """Make one decision again, step by step, and say whether it is EQUAL.

    TRANSACTION is its id, or PARTITION/OFFSET: where it lies on card-transactions, as the auditor's log says. The decision and its card's past come
    from the lake; where it has them not, from the topics. What other services knew at that moment (terminal, account, customer) is recorded with
    the decision and taken as it is. The exit code is 1 if something differs; the last line is JSON.
    """
    from services.auditor.explanation import EQUAL
    from services.auditor.explanation import explain as made_again
    from services.auditor.parts import folders_of
    from services.checker.scoring import Scoring

    case = _case(settings, _ref(transaction))
    progress("making the decision again")
    try:
        scoring = Scoring(folders_of(settings), (settings.safe_challenge_from, settings.safe_review_from))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"a released model cannot be read: {type(error).__name__}: {error}") from None
    found = made_again(case, scoring)
    if not as_json:
        for line in _lines(found):
            click.echo(line)
    click.echo(json.dumps(found))
    return int(found["verdict"] != EQUAL)


def _ref(said: str) -> DecisionRef:
    """Return what is asked for. Raises UserError."""
    if place := _PLACE.fullmatch(said):
        return DecisionRef(None, (int(place[1]), int(place[2])))
    try:
        return DecisionRef(uuid.UUID(said).bytes, None)
    except ValueError:
        raise UserError(
            "that is neither a transaction's id, such as 8a6e0804-2bd0-4672-b79d-d97027f9071a, nor PARTITION/OFFSET"
        ) from None


def _case(settings: Settings, ref: DecisionRef) -> DecisionCase:
    """Return the decision with what it is made again from: the lake's, else the topics'. Raises UserError."""
    from services.checker.evidence import EvidenceError
    from services.cli.explain_records import case_of_lake, case_of_topics
    from services.streams import StreamsError

    tried = []
    for name, read in (("the lake", case_of_lake), ("the topics", case_of_topics)):
        try:
            found = read(settings, ref)
        except ModuleNotFoundError as error:
            tried.append(f"{name}: this installation lacks {error.name}: pip install 'proact[lake]'")
        except (EvidenceError, StreamsError) as error:
            tried.append(f"{name}: {with_remedy(error)}")
        else:
            if found is not None:
                return found
            tried.append(f"{name}: not there, or no more")
        progress(f"{tried[-1]}")
    raise UserError(f"no decision on {ref} with its transaction: {'; '.join(tried)}")


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the steps as people read them."""
    asked, profile, release, score = (found[name] for name in ("transaction", "profile", "release", "score"))
    yield f"transaction {asked['transaction_id']} at {asked['place']} of card-transactions"
    yield f"  card {asked['card_id']}, {_at(asked['event_time_ms'])}, {asked['billing_amount_minor']} minor units {asked['billing_currency']}"
    yield f"  {asked['entry_mode']} in {asked['country']} at {asked['terminal_id']}{', a repeat' if asked['repeat'] else ''}"
    yield ""
    yield f"1. profile: {profile['remembered']} earlier transactions are remembered{_span(profile)}"
    if not found["past_known"]:
        yield "   the log does not reach back far enough: what depends on the card's past is not compared"
    yield "2. features (= made again and equal, ! another, ? not compared, . recorded of what other services knew)"
    width = max((len(one["name"]) for one in found["features"]), default=0)
    for one in found["features"]:
        mark = "." if one["equal"] is None else "=" if one["equal"] else "!" if _compared(found, one) else "?"
        again = f" (made again: {_shown(one['again'])})" if one["equal"] is False else ""
        yield f"   {mark} {one['name']:<{width}} {_shown(one['value']):>14}  {one['definition']}{again}"
    yield f"3. release: {release['model']} {release['model_version']}, {release['fallback_tier']}, features {release['feature_set_hash'][:12]}"
    yield f"   class {release['transaction_class']}, scored by {release['scored_by']}"
    yield from _scores(score)
    yield from _of_rules(found["rules"], score)
    declined = "; ".join(f"{one['code']}: {one['text']}" for one in found["eligibility"]) or "forbid nothing"
    yield f"7. account and customer: {declined}"
    yield "8. reasons: " + (
        "; ".join(f"{one['text']} ({one['weight']:+.3f})" for one in found["reasons"]) or "none is needed"
    )
    final = found["action"]
    marks = f", marked {', '.join(final['degraded'])}" if final["degraded"] else ""
    control = (
        f", let through by the control group instead of {final['control_action']}" if final["control_action"] else ""
    )
    yield f"9. action: {final['action']} by {final['decided_by']}{control}{marks}"
    yield ""
    yield found["verdict"] if not found["differs"] else f"{found['verdict']}: {'; '.join(found['differs'])}"


def _scores(score: dict[str, Any]) -> Iterator[str]:
    if score["again"] is None:
        yield f"4. score: {score['score']}; not made again: {score['why']}"
        yield "5. thresholds and anomaly: none"
        return
    yield f"4. score: {score['score']!r}, made again {score['again']!r}: {'equal to the bit' if score['equal'] else 'ANOTHER'}"
    cuts = ", ".join(f"{name} from {cut:.6f}" for name, cut in score["thresholds"].items())
    yield f"5. thresholds: {cuts}: {score['by_model']}"
    anomaly = (
        "nobody could say"
        if score["anomaly_score"] is None
        else f"{score['anomaly_score']} (review from {score['anomaly_review_from']:.6f})"
    )
    yield f"   anomaly: {anomaly}: {score['with_anomaly']}"


def _of_rules(rules: dict[str, Any], score: dict[str, Any]) -> Iterator[str]:
    yield f"6. rules: version {rules['version']}, {len(rules['held'])} held" + (
        f": {score['with_rules']}" if score.get("with_rules") else ""
    )
    for one in rules["held"]:
        yield f"   {one['rule_id']} {one['effect']} {one['action']}: {one['when'] or 'its condition is not kept'}"


def _compared(found: dict[str, Any], feature: dict[str, Any]) -> bool:
    return bool(found["past_known"]) or not feature["name"].startswith("card_")


def _span(profile: dict[str, Any]) -> str:
    if not profile["remembered"]:
        return ""
    return f", from {_at(profile['oldest_ms'])} to {_at(profile['newest_ms'])}; the last at offset {profile['last_offset']}"


def _at(epoch_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.10g}"
