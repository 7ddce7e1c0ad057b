"""What Prometheus is asked, how its answers read, and what is said when it does not answer."""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from services.cli.main import proact
from services.observer.questions import QUESTIONS, Answer, NoPrometheusError, ask, describe, number
from services.runtime.logs import transaction_token
from services.stack.processes import free_port


class _Prometheus(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)["query"][0]
        series = [
            {"metric": {"__name__": "x", "action": "BLOCK"}, "value": [1, "3"]},
            {"metric": {}, "value": [1, "NaN"]},
        ]
        answer = {"status": "success", "data": {"result": [] if query == "nothing" else series}}
        self.send_response(400 if query == "wrong(" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def prometheus():
    server = HTTPServer(("127.0.0.1", 0), _Prometheus)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_answer_is_every_series_without_its_name(prometheus):
    first, second = ask(prometheus, "sum(x)")

    assert first == Answer({"action": "BLOCK"}, 3.0)
    assert second.value != second.value
    assert ask(prometheus + "/", "nothing") == []


@pytest.mark.parametrize(
    ("url", "query", "says"),
    [
        (None, "wrong(", "refuses"),
        ("http://127.0.0.1:{free}", "x", "no Prometheus answers"),
        ("file:///etc/passwd?", "x", "is not the address"),
    ],
)
def test_a_prometheus_that_cannot_be_asked_is_an_error_in_words(prometheus, url, query, says):
    with pytest.raises(NoPrometheusError, match=says):
        ask(url.replace("{free}", str(free_port())) if url else prometheus, query)


def test_answers_are_reported_in_few_digits_and_without_what_is_not():
    reported = describe([Answer({"a": "X", "b": "y"}, 1204.4), Answer({"a": "Z"}, 0), Answer({"a": "N"}, float("nan"))])

    assert reported == "X y 1,204"
    assert describe([Answer({}, 0.0)]) == "0"
    assert describe([]) == "nothing"
    assert [number(v) for v in (0.012345, 99.5, 1e6, 3.0)] == ["0.0123", "99.5", "1,000,000", "3"]


def test_the_report_asks_everything_for_people_and_for_machines(prometheus):
    text = CliRunner().invoke(proact, ["report", "--prometheus-url", prometheus])
    machines = CliRunner().invoke(proact, ["report", "--prometheus-url", prometheus, "--json"])

    assert all(question.text in text.output and "BLOCK 3" in text.output for question in QUESTIONS)
    assert [entry["query"] for entry in json.loads(machines.output)] == [question.query for question in QUESTIONS]


def test_without_a_prometheus_the_report_is_one_line():
    done = CliRunner().invoke(proact, ["report", "--prometheus-url", f"http://127.0.0.1:{free_port()}"])

    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_the_token_of_a_transaction_is_the_one_in_the_logs():
    done = CliRunner().invoke(proact, ["token", "00000000-0000-0000-0000-000000000001"])
    wrong = CliRunner().invoke(proact, ["token", "4111111111111111"])

    assert done.output.strip() == transaction_token(bytes(15) + b"\x01")
    assert wrong.exit_code == 1
