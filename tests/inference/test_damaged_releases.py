"""Whatever the files of a release hold, loading it ends in a model or in one kind of error."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.decision.model_loader import usable_model
from services.inference import ModelError
from services.inference.artifact import load_manifest, load_model, load_small
from services.inference.json_files import DEPTH_MAX, parse_object
from services.inference.released import live_model
from services.runtime.settings import resolve_settings

DEEP = b"[" * 100_000
BAD = {
    "deep": DEEP, "deep objects": b'{"a":' * 100_000, "deep and closed": DEEP + b"]" * 100_000, "empty": b"", "not UTF-8": b'{"a": "\xff"}',
    "a list": b"[]", "a number": b"1" * 5_000, "NaN": b'{"name": NaN}', "twice": b'{"name": "a", "name": "b"}', "open": b'{"a": "',
    "a bare text": b'"x"', "nulls": b"\0" * 1_000,
}  # fmt: skip
FILES = ("manifest.json", "golden.json", "anomaly.json", "champion.json", "small.json")


@pytest.fixture
def release(tmp_path):
    return shutil.copytree(live_model(), tmp_path / "v1")


def put(release, name: str, raw: bytes) -> None:
    """Write a file, and into the manifest what belongs to it, as who damages it on purpose would."""
    (release / name).write_bytes(raw)
    manifest = json.loads((live_model() / "manifest.json").read_text())
    digest = hashlib.sha256(raw).hexdigest()
    if name == "anomaly.json":
        manifest["anomaly_sha256"] = digest
    elif name in ("champion.json", "small.json"):
        manifest["boosters"][name.removesuffix(".json")] = digest
    if name != "manifest.json":
        (release / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", BAD)
def test_a_damaged_file_is_one_kind_of_error(release, name, how):
    put(release, name, BAD[how])

    with pytest.raises(ModelError, match=r".{3}"):
        load_model(release)


def test_with_a_damaged_manifest_a_scorer_goes_on_without_a_model(release):
    put(release, "manifest.json", DEEP)

    assert usable_model(resolve_settings({"model_path": str(release)}, {})) is None


def test_a_file_that_is_too_large_is_not_read(release):
    with (release / "manifest.json").open("wb") as file:
        file.truncate(10**12)

    with pytest.raises(ModelError, match="bytes, more than"):
        load_manifest(release)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("0x1p0") | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.sampled_from(("manifest.json", "golden.json", "anomaly.json")), st.data())
def test_no_value_in_the_place_of_another_is_anything_but_that_error(release, name, data):
    reported = json.loads((live_model() / name).read_text())
    at, key = reported, data.draw(st.sampled_from(sorted(reported)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at)))
    at[key] = data.draw(ANYTHING)
    put(release, name, json.dumps(reported).encode())

    for load in (load_model, load_small):
        try:
            model = load(release)
        except ModelError:
            continue
        assert isinstance(model.name, str)
        assert isinstance(model.version, str)


@given(st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_that_error(raw):
    with contextlib.suppress(ModelError):
        assert isinstance(parse_object(raw, "x"), dict)


def test_brackets_within_texts_do_not_count():
    assert parse_object(json.dumps({"a": "[" * 1_000 + '\\"{'}).encode(), "x") == {"a": "[" * 1_000 + '\\"{'}
    with pytest.raises(ModelError, match="brackets"):
        parse_object(b"[" * (DEPTH_MAX + 1), "x")
