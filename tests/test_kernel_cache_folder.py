"""Where compiled kernels are kept: also where neither checkout nor home can be written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from services import _kernel_cache


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing set, and a checkout in which nothing can be made: a file is in the folder's place, which also stops root."""
    (tmp_path / "package").touch()
    monkeypatch.setattr(_kernel_cache, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(_kernel_cache, "sources_hash", lambda: "abc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "package" / "cache"))
    monkeypatch.setattr(_kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(_kernel_cache.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    return tmp_path


def folder() -> Path:
    return Path(os.environ["NUMBA_CACHE_DIR"])


def test_without_any_folder_of_ones_own_it_is_among_the_temporary_files_with_one_line(fresh, capsys):
    _kernel_cache.use_kernel_cache()

    assert folder().is_relative_to(fresh)
    assert stat.S_IMODE(folder().parent.stat().st_mode) == 0o700, "what lies in it is run: nobody else may put it there"
    said = capsys.readouterr().err
    assert said.startswith("proact: neither the package's folder nor the user's cache folder can be written")
    assert said.count("\n") == 1

    first = folder()
    os.environ.pop("NUMBA_CACHE_DIR")
    _kernel_cache.use_kernel_cache()
    assert folder() == first, "the next process finds what this one compiled"


def test_a_folder_that_others_can_write_to_is_not_used(fresh):
    planted = fresh / f"proact-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)

    _kernel_cache.use_kernel_cache()

    assert not folder().is_relative_to(planted)
    assert folder().is_relative_to(fresh)


def test_the_users_cache_folder_is_used_without_a_word(fresh, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "home"))

    _kernel_cache.use_kernel_cache()

    assert folder() == fresh / "home" / "proact" / "kernels-abc"
    assert not capsys.readouterr().err


def test_what_is_set_stays(fresh, monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")

    _kernel_cache.use_kernel_cache()

    assert str(folder()) == "/somewhere"
    assert not capsys.readouterr().err
