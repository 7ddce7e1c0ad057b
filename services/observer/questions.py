"""What people ask of Prometheus: the queries behind the table of docs/metrics.md and ``proact report``."""

from __future__ import annotations

import base64
import http.client
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import ClassVar, Final

ASK_TIMEOUT_S: Final = 5.0


class NoPrometheusError(Exception):
    """Prometheus does not answer, or refuses the query."""


class PrometheusAwayError(NoPrometheusError):
    """Nobody answers there."""

    remedy: ClassVar[str] = "start one with `make up`, or name the one that runs with PROACT_PROMETHEUS_URL"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the query that answers it, and the answer's unit."""

    text: str
    query: str
    unit: str


# An increase is extrapolated to the ends of its window: what is counted is reported in whole numbers.
QUESTIONS: Final = (
    Question("How many transactions are decided?", "sum(rate(proact_decisions_total[1m]))", "a second"),
    Question("What is decided?", "round(sum by (action) (increase(proact_decisions_total[1h])))", "in the last hour"),
    Question(
        "How long does it take, half of the time?",
        "histogram_quantile(0.5, sum by (le) (rate(proact_decision_latency_seconds_bucket[1m])))",
        "s",
    ),
    Question(
        "And 99 of 100 times?",
        "histogram_quantile(0.99, sum by (le) (rate(proact_decision_latency_seconds_bucket[1m])))",
        "s",
    ),
    Question("How many records wait?", 'sum(proact_group_lag_records{topic="card-transactions"})', "records"),
    Question(
        "What is refused, and why?",
        'round(sum by (reason) (increase(proact_dead_letters_total{job="scorer"}[1h])))',
        "in the last hour",
    ),
    Question(
        "How much money is blocked?",
        'round(sum by (currency) (increase(proact_billing_amount_total{action="BLOCK"}[1h])))',
        "major units in the last hour",
    ),
    Question(
        "How many alerts are about fraud, and how many about declines?",
        "round(sum by (kind, severity) (increase(proact_alerts_total[1h])))",
        "in the last hour",
    ),
    Question(
        "Where does the time of a batch go?",
        'sum by (stage) (rate(proact_stage_seconds_sum{job="scorer"}[5m])) / sum by (stage) (rate(proact_stage_seconds_count{job="scorer"}[5m])) * 1000',
        "ms",
    ),
    Question(
        "What does a record cost?",
        'sum(rate(process_cpu_seconds_total{job="scorer"}[5m])) / sum(rate(proact_records_in_total{job="scorer"}[5m])) * 1e6',
        "microseconds of processor",
    ),
    Question("How many scorers are ready?", 'sum(proact_ready{job="scorer"})', "scorers"),
    Question("Which model scores?", 'sum by (model, version) (proact_model_info{job="scorer"})', "scorers"),
    Question("How full is the grid?", "100 * max(proact:grid_memory:ratio)", "% of its memory"),
    Question("What is wrong?", 'count by (alertname, severity) (ALERTS{alertstate="firing"})', "times"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One series of an answer: its labels, and its value (NaN where there is nothing to divide)."""

    labels: dict[str, str]
    value: float


def ask(prometheus_url: str, query: str, shown: str | None = None) -> list[Answer]:
    """Ask for the values of a query now.

    Args:
        prometheus_url: its address; may hold a user and a password.
        query: in PromQL.
        shown: what messages call the address; itself if left out.

    Raises:
        NoPrometheusError: it does not answer.
    """
    where = shown or prometheus_url
    parts = urllib.parse.urlsplit(
        f"{prometheus_url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    )
    login, _, host = parts.netloc.rpartition("@")
    url = parts._replace(netloc=host).geturl()
    basic = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
    headers = {"Authorization": f"Basic {basic}"} if login else {}
    if not url.startswith(("http://", "https://")):
        raise NoPrometheusError(f"{where} is not the address of a Prometheus, such as http://127.0.0.1:9090")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ASK_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            result = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise NoPrometheusError(f"{where} refuses {query!r}: {error.code} {error.reason}") from None
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise PrometheusAwayError(f"no Prometheus answers at {where} ({reason})") from None
    labelled = ((series["metric"], series["value"][1]) for series in result)
    return [Answer({k: v for k, v in labels.items() if k != "__name__"}, float(v)) for labels, v in labelled]


def describe(answers: list[Answer]) -> str:
    """Return answers in words, such as ``APPROVE 1,204, BLOCK 3``; of several, those that are 0 go without saying."""
    known = [a for a in answers if not math.isnan(a.value) and (a.value != 0 or not a.labels)]
    return ", ".join(f"{' '.join(a.labels.values())} {number(a.value)}".strip() for a in known) or "nothing"


def number(value: float) -> str:
    """Return a number in as many digits as people need."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def questions_table() -> str:
    """Return the table of all questions, in Markdown, as docs/metrics.md holds it."""
    rows = ["| question | query | unit |", "|---|---|---|"]
    return "\n".join(rows + [f"| {q.text} | `{q.query}` | {q.unit} |" for q in QUESTIONS])
