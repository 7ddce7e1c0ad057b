"""What can be said of the clients of Kafka and Redis: where, by what names, what is refused, and that no secret shows."""

from __future__ import annotations

import logging
import pickle
import time

import pytest
from confluent_kafka import Consumer, Producer

from services.grid.connection import OPTIONS, GridConnection
from services.runtime.settings import ConfigError, resolve_settings
from services.secrets import HiddenValues, SecretUrl
from services.streams.clients import ATOMIC, COMMON, CONSUMER, GROUPLESS, PRODUCER
from services.streams.connection import CONSUMER_ONLY, PRODUCER_ONLY, REFUSED, KafkaConnection

CANARY = "c4n4ry"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_settings({}, environment)
    assert "\n" not in str(caught.value)
    assert CANARY not in repr(caught.value)
    return str(caught.value)


def test_a_variable_beats_the_table_and_an_empty_one_says_that_nothing_is_set(tmp_path):
    (tmp_path / "proact.toml").write_text(
        '[kafka]\nsecurity.protocol = "SASL_SSL"\n"sasl.mechanism" = "PLAIN"\nclient.rack = "a"\n'
        'socket.keepalive.enable = true\n[redis]\nclient_name = "file"\ndb = 3\n'
    )
    said = {"PROACT_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "PROACT_KAFKA_SASL_MECHANISM": "", "PROACT_REDIS_CLIENT_NAME": "variable"}  # fmt: skip
    settings = resolve_settings({}, said)

    assert dict(settings.kafka.properties) == {
        "security.protocol": "PLAINTEXT", "client.rack": "a", "socket.keepalive.enable": "true",
    }  # fmt: skip
    assert settings.grid.arguments() == {"client_name": "variable", "db": 3}


def test_the_declared_settings_are_no_properties():
    said = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": "host:1", "PROACT_KAFKA_PORT": "9", "PROACT_REDIS_PORT": "8", "PROACT_REDIS_URL": "redis://h:1"}  # fmt: skip
    settings = resolve_settings({}, said)

    assert (settings.kafka.bootstrap_servers, settings.kafka_port, settings.redis_port) == ("host:1", 9, 8)
    assert not settings.kafka.properties
    assert not settings.grid.options


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_guarantees_rest_on_is_refused_by_name_with_the_reason(name):
    variable = f"PROACT_KAFKA_{name.upper().replace('.', '_')}"
    if variable == "PROACT_KAFKA_BOOTSTRAP_SERVERS":
        return  # that is the setting

    assert refused({variable: "1"}) == f"{variable}: {name} cannot be set: {REFUSED[name]}"


def test_all_that_ours_must_hold_is_refused():
    """Whoever adds a client setting that something rests on says so; what is only tuned may be tuned."""
    tuned = {
        "client.id", "socket.nagle.disable", "metadata.recovery.rebootstrap.trigger.ms", "log_level", "fetch.max.bytes",
        "receive.message.max.bytes", "fetch.message.max.bytes", "topic.metadata.refresh.interval.ms", "fetch.wait.max.ms", "fetch.min.bytes",
        "fetch.error.backoff.ms", "queued.min.messages", "queued.max.messages.kbytes", "fetch.queue.backoff.ms", "linger.ms", "retry.backoff.ms",
        "retry.backoff.max.ms", "queue.buffering.max.messages", "queue.buffering.max.kbytes", "batch.num.messages",
    }  # fmt: skip
    ours = {*COMMON, *CONSUMER, *GROUPLESS, *PRODUCER, *ATOMIC}

    assert ours - tuned <= REFUSED.keys()
    assert not tuned & REFUSED.keys()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"PROACT_KAFKA_SECURITY_PROTOKOL": "SSL"}, ["PROACT_KAFKA_SECURITY_PROTOKOL", "security.protokol"]),
        ({"PROACT_KAFKA_SECURITY_PROTOCOL": "TLS"}, ["PROACT_KAFKA_SECURITY_PROTOCOL", "TLS"]),
        ({"PROACT_KAFKA_FETCH_MIN_BYTES": "some"}, ["PROACT_KAFKA_FETCH_MIN_BYTES", "fetch.min.bytes"]),
        ({"PROACT_KAFKA_LOGGER": "x"}, ["PROACT_KAFKA_LOGGER"]),
        ({"PROACT_KAFKA_ERROR_CB": "x"}, ["PROACT_KAFKA_ERROR_CB"]),
        ({"PROACT_KAFKA_TEST_MOCK_NUM_BROKERS": "3"}, ["it would replace Kafka"]),
        ({"PROACT_KAFKA_SSL_CA_LOCATION": "/nowhere", "PROACT_KAFKA_SECURITY_PROTOCOL": "SSL"}, ["ssl.ca.location"]),
        (
            {"PROACT_KAFKA_SSL_KEY_PEM": CANARY, "PROACT_KAFKA_SECURITY_PROTOCOL": "SSL"},
            ["PROACT_KAFKA_SSL_KEY_PEM", "ssl.key.pem"],
        ),
        (
            {
                "PROACT_KAFKA_SASL_PASSWORD": CANARY,
                "PROACT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "PROACT_KAFKA_SASL_MECHANISM": "MD5",
            },
            ["PROACT_KAFKA_SASL_MECHANISM", "MD5"],
        ),
        ({"PROACT_REDIS_COLOUR": "red"}, ["PROACT_REDIS_COLOUR", "there is no option colour"]),
        ({"PROACT_REDIS_DB": CANARY}, ["PROACT_REDIS_DB", "whole number"]),
        ({"PROACT_REDIS_RETRY_ON_TIMEOUT": "1"}, ["a write whose answer was lost must not run again"]),
        ({"PROACT_REDIS_SOCKET_TIMEOUT": "1"}, ["say grid_timeout_ms"]),
        ({"PROACT_REDIS_SSL_CA_CERTS": "/ca.pem"}, ["needs rediss://"]),
        ({"PROACT_REDIS_URL": "rediss://h", "PROACT_REDIS_SSL_MIN_VERSION": "1.1"}, ["must be one of 1.2, 1.3"]),
        ({"PROACT_REDIS_URL": f"redis://u:{CANARY}@h", "PROACT_REDIS_PASSWORD": CANARY}, ["say it in one place"]),
        ({"PROACT_REDIS_URL": "redis://h/0?decode_responses=1"}, ["redis_url", "profiles are bytes"]),
        ({"PROACT_REDIS_URL": f"redis://h/0?colour={CANARY}"}, ["redis_url", "colour"]),
    ],
)
def test_what_a_client_does_not_take_is_one_line_that_says_where_it_was_said(environment, says):
    said = refused(environment)

    assert says
    assert all(words in said for words in says), said


@pytest.mark.parametrize(
    "text", ["kafka = 3", "[kafka]\nacks = 1", '[kafka]\nerror_cb = "x"', '[kafka]\nsecurity.protocol = ["SSL"]', "[redis]\ncolour = 1", "[kafka]\nno.such = 1"]
)  # fmt: skip
def test_a_table_is_checked_as_variables_are(tmp_path, text):
    (tmp_path / "proact.toml").write_text(text)

    assert "proact.toml: [" in refused({})


def test_secrets_come_from_files(tmp_path):
    files = {"url": f"redis://:{CANARY}@h:1/0\n", "password": f"{CANARY}\r\n", "prometheus": "http://p:1"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    settings = resolve_settings(
        {}, {
            "PROACT_REDIS_URL_FILE": str(tmp_path / "url"), "PROACT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
            "PROACT_PROMETHEUS_URL_FILE": str(tmp_path / "prometheus"),
        },
    )  # fmt: skip

    assert settings.redis_url.reveal() == f"redis://:{CANARY}@h:1/0"
    assert settings.prometheus_url.reveal() == "http://p:1"
    assert settings.kafka.properties["sasl.password"] == CANARY
    assert resolve_settings({}, settings.environment()) == settings


@pytest.mark.parametrize("variable", ["PROACT_REDIS_URL", "PROACT_KAFKA_SASL_PASSWORD", "PROACT_REDIS_PASSWORD"])
def test_a_secrets_file_that_cannot_be_read_is_one_line(tmp_path, variable):
    for name, content in {"empty": b"\n", "binary": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(content)
        assert f"{variable}_FILE: {tmp_path / name}" in refused({f"{variable}_FILE": str(tmp_path / name)})
    assert "No such file" in refused({f"{variable}_FILE": "nowhere"})
    (tmp_path / "there").write_text(f"redis://{CANARY}")
    both = refused({f"{variable}_FILE": str(tmp_path / "there"), variable: CANARY})
    assert both == f"{variable} and {variable}_FILE are both set: leave one out"


def test_a_property_whose_own_name_ends_with_file_is_a_path():
    settings = resolve_settings({}, {"PROACT_KAFKA_SASL_OAUTHBEARER_ASSERTION_FILE": "/nowhere"})

    assert dict(settings.kafka.properties) == {"sasl.oauthbearer.assertion.file": "/nowhere"}
    assert resolve_settings({}, settings.environment()) == settings


def test_a_child_is_reported_all_of_it_and_nothing_of_what_its_parent_left(tmp_path):
    (tmp_path / "proact.toml").write_text('[kafka]\nclient.rack = "a"\n[redis]\ndb = 3\n')
    (tmp_path / "password").write_text(CANARY)
    own = {"PROACT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"), "PROACT_REDIS_PASSWORD": CANARY}
    settings = resolve_settings({}, own)
    embedded = settings.connected_to(KafkaConnection("127.0.0.1:1"), GridConnection.of("redis://127.0.0.1:1"))

    assert resolve_settings({}, {**own, **settings.environment()}).kafka == settings.kafka
    child = resolve_settings({}, {**own, **embedded.environment()})
    assert child.kafka == KafkaConnection("127.0.0.1:1")
    assert child.grid == GridConnection.of("redis://127.0.0.1:1")


def test_no_value_shows_a_secret():
    kafka = KafkaConnection("h:1", HiddenValues({"sasl.password": CANARY, "ssl.key.pem": CANARY, "security.protocol": "SSL"}))  # fmt: skip
    grid = GridConnection(SecretUrl(f"redis://h:1/0?password={CANARY}"), HiddenValues({"username": CANARY}))
    settings = resolve_settings({}, {}).connected_to(kafka, grid)
    for value in (kafka, grid, settings, kafka.properties, grid.options):
        assert CANARY not in f"{value} {value!r} {[value]}"
        assert "sasl.password" in repr(value) or value in (grid, grid.options)
        with pytest.raises(TypeError):
            pickle.dumps(value)
    assert "SSL" in repr(kafka)


def warnings_of(make, name: str, kind: str, caplog) -> list[str]:
    value = VALUES.get(name, "1000")
    caplog.clear()
    client = make(
        {name: value, "group.id": "g"} if make is Consumer else {name: value}, logger=logging.getLogger("client")
    )
    for _ in range(20):
        client.poll(0.01)
        if caplog.messages:
            break
        time.sleep(0.005)
    if make is Consumer:
        client.close()
    return [line for line in caplog.messages if f"is a {kind} property" in line]


VALUES = {
    "compression.level": "1",
    "compression.codec": "gzip",
    "compression.type": "gzip",
    "produce.offset.report": "true",
}


@pytest.mark.parametrize(
    ("names", "make", "kind"), [(PRODUCER_ONLY, Consumer, "producer"), (CONSUMER_ONLY, Producer, "consumer")]
)
def test_the_client_itself_says_which_properties_are_of_one_kind(names, make, kind, caplog):
    silent = [name for name in sorted(names) if not warnings_of(make, name, kind, caplog)]

    assert not silent, f"no {kind} property: {silent}"


def test_each_client_is_reported_what_is_of_its_kind():
    kafka = KafkaConnection("h:1", HiddenValues({"linger.ms": "3", "fetch.min.bytes": "2", "client.rack": "a"}))

    assert kafka.consumer({"a": 1}) == {"a": 1, "bootstrap.servers": "h:1", "fetch.min.bytes": "2", "client.rack": "a"}
    assert kafka.producer({"linger.ms": 0}) == {"bootstrap.servers": "h:1", "linger.ms": "3", "client.rack": "a"}
    assert kafka.admin({}) == {"bootstrap.servers": "h:1", "client.rack": "a"}


def test_every_option_of_redis_is_one_of_its_clients():
    import inspect  # noqa: PLC0415

    from redis.connection import AbstractConnection, Connection, SSLConnection  # noqa: PLC0415

    known = {n for c in (AbstractConnection, Connection, SSLConnection) for n in inspect.signature(c).parameters}
    assert known >= OPTIONS.keys()
