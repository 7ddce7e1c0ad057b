"""The grid in Redis: the only place that imports the redis client, with :mod:`.status`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.grid.answers import attempt_of, changed_since, number_of, offsets_of, status_of
from services.grid.base import (
    CHANGES_MAX,
    ERRORS_MAX,
    Applied,
    Attempt,
    CacheStamp,
    Claim,
    Found,
    GridAnswer,
    GridAwayError,
    GridMovedError,
    GridRead,
    GridRefusedError,
    GridUnavailableError,
    GridWrite,
    HaltedError,
    LogIdentity,
    Lookup,
    PartitionStatus,
    RefusedClaimError,
    UnsafeGridError,
)
from services.grid.connection import GridConnection, place_of
from services.grid.keys import changes_key, meta_key, profiles_key

_SCRIPTS = Path(__file__).parent
READ_CARDS_MAX: Final = 5_000
"""Profiles of one HMGET: bounds how long Redis serves nobody else."""
_DECLINES: Final = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.NoPermissionError,
)
"""NOAUTH, WRONGPASS, NOPERM and their like: Redis is there, and does not serve this client."""
_WITHOUT_PASSWORD: Final = ("Authentication required", "client already authenticated")
"""What Redis says to a client that gave no password: to its first command, or to its HELLO."""
_WRONG_PAIR: Final = "invalid username-password pair"


class _Script:
    """A Lua script, called by its hash and sent again where Redis does not know it (it did not run then)."""

    def __init__(self, name: str) -> None:
        self.source = (_SCRIPTS / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


_CLAIM, _APPLY, _NOTE, _HALT, _RESUME = map(_Script, ("claim", "apply", "note", "halt", "resume"))


def described(error: Exception) -> str:
    """Return what a client's error says, without what Redis repeats of a command that it does not know: that may be a password."""
    return f"{type(error).__name__}: {str(error).partition(', with args')[0]}"


@contextmanager
def outages(where: str) -> Iterator[None]:
    """Turn the client's errors into the grid's one error, which says where it is: all of them are waited out."""
    try:
        yield
    except _DECLINES as error:
        raise GridRefusedError(refused(error, where)) from None
    except redis.exceptions.BusyLoadingError as error:
        raise GridUnavailableError(f"Redis at {where}: {described(error)}") from None
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise GridAwayError(f"Redis at {where} does not answer ({described(error)})") from None
    except redis.exceptions.RedisError as error:
        raise GridUnavailableError(f"Redis at {where}: {described(error)}") from None


def refused(error: Exception, where: str) -> str:
    """Return what to do about a decline, without Redis's own words: these may hold the user."""
    if any(words in str(error) for words in _WITHOUT_PASSWORD):
        return f"Redis at {where} wants a password: set PROACT_REDIS_PASSWORD, and PROACT_REDIS_USERNAME where it has users"
    if isinstance(error, (redis.exceptions.NoPermissionError, redis.exceptions.AuthorizationError)):
        return (
            f"Redis at {where} does not allow the user of PROACT_REDIS_URL or PROACT_REDIS_USERNAME what the grid needs "
            f"({type(error).__name__})"
        )
    why = _WRONG_PAIR if _WRONG_PAIR in str(error) else type(error).__name__
    return f"Redis at {where} refuses the user or the password of PROACT_REDIS_URL or PROACT_REDIS_USERNAME and PROACT_REDIS_PASSWORD ({why})"


class RedisGrid:
    """See :class:`services.grid.Grid` for the protocol.

    The client never retries by itself: redis-py's default of ten retries runs a write again whose answer was lost. The
    worker repeats what is safe to repeat.
    """

    def __init__(self, connection: GridConnection, timeout_s: float = 2.0, lookup_timeout_s: float = 0.05) -> None:
        self._process, self._where = uuid.uuid4().hex, place_of(connection.address)
        self._client, self._with_deadline = connect(connection, timeout_s), connect(connection, lookup_timeout_s)

    def claim(self, topic: str, partition: int, identity: LogIdentity, *, even_if_halted: bool = False) -> Claim:
        """See :class:`services.grid.Grid`."""
        owner = uuid.uuid4().hex
        arguments = [owner, self._process, identity.topic_id, identity.partitions, identity.layout, int(even_if_halted)]
        verdict, *rest = self._run([(_CLAIM, _keys(topic, partition), arguments)])[0]
        if verdict == b"HALTED":
            raise HaltedError(rest[0].decode(errors="replace"))
        if verdict == b"REFUSED":
            raise RefusedClaimError(LogIdentity(rest[0].decode(), int(rest[1]), int(rest[2])), identity)
        epoch, applied, process, attempt, poison, accepted, errors, begins_ms = rest
        died = process not in (b"", self._process.encode())
        return Claim(
            partition, owner, int(epoch), int(applied) if applied else None, died,
            attempt_of(attempt) if died else None,
            offsets_of(poison), int(accepted), offsets_of(errors), int(begins_ms) if begins_ms else None,
        )  # fmt: skip

    def read(
        self, topic: str, reads: Sequence[GridRead], lookups: Sequence[Lookup] = (), *, with_deadline: bool = False
    ) -> GridAnswer:
        """See :class:`services.grid.Grid`."""
        pipeline = (self._with_deadline if with_deadline else self._client).pipeline(transaction=False)
        for read in reads:
            meta, profiles, _ = _keys(topic, read.claim.partition)
            _ask_profiles(pipeline, profiles, read.cards)
            # Asked behind the profiles on the same connection: what stands now stood when they were read.
            pipeline.hmget(meta, "owner", "applied", "profiles")
            pipeline.hlen(profiles)
        _ask_lookups(pipeline, lookups)
        with outages(self._where):
            answers = iter(pipeline.execute())
        found = []
        for read in reads:
            stored = _take_profiles(answers, read.cards)
            _prove(read, next(answers), next(answers))
            found.append(stored)
        return GridAnswer(found, _take_found(answers, lookups))

    def look_up(self, lookups: Sequence[Lookup]) -> list[Found]:
        """See :class:`services.grid.Grid`."""
        pipeline = self._with_deadline.pipeline(transaction=False)
        _ask_lookups(pipeline, lookups)
        with outages(self._where):
            return _take_found(iter(pipeline.execute()), lookups)

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """See :class:`services.grid.Grid`."""
        calls = []
        for write in writes:
            expected: str | int = "" if write.expected is None else write.expected
            newest: str | int = "" if write.folded_until_ms is None else write.folded_until_ms
            arguments: list[Any] = [None] * (2 * len(write.cards))
            arguments[::2], arguments[1::2] = write.cards, write.profiles
            keys, remembered = _keys(topic, write.claim.partition), CHANGES_MAX if write.announced else 0
            calls.append((_APPLY, keys, [write.claim.owner, expected, write.target, newest, remembered, *arguments]))
        return [Applied[answer.decode()] for answer in self._run(calls)]

    def release(self, topic: str, claims: Sequence[Claim]) -> None:
        """See :class:`services.grid.Grid`."""
        self._run([(_NOTE, _keys(topic, c.partition)[:1], [c.owner, "process", "", "attempt", ""]) for c in claims])

    def note_attempt(self, topic: str, claim: Claim, attempt: Attempt | None) -> None:
        """See :class:`services.grid.Grid`."""
        value = "" if attempt is None else ",".join(f"{begin}:{end}" for begin, end in attempt.ranges)
        self._run([(_NOTE, _keys(topic, claim.partition)[:1], [claim.owner, "attempt", value])])

    def note_poison(self, topic: str, claim: Claim, offset: int) -> None:
        """See :class:`services.grid.Grid`."""
        with outages(self._where):
            known = offsets_of(self._client.hget(meta_key(topic, claim.partition), "poison") or b"")
        value = ",".join(map(str, sorted(known | {offset})))
        self._run([(_NOTE, _keys(topic, claim.partition)[:1], [claim.owner, "poison", value])])

    def note_errors(self, topic: str, claim: Claim, offsets: Collection[int]) -> None:
        """See :class:`services.grid.Grid`."""
        with outages(self._where):
            known = offsets_of(self._client.hget(meta_key(topic, claim.partition), "errors") or b"")
        value = ",".join(map(str, sorted(known.union(offsets))[-ERRORS_MAX:]))
        self._run([(_NOTE, _keys(topic, claim.partition)[:1], [claim.owner, "errors", value])])

    def note_beginning(self, topic: str, claim: Claim, begins_ms: int) -> None:
        """See :class:`services.grid.Grid`."""
        self._run([(_NOTE, _keys(topic, claim.partition)[:1], [claim.owner, "begins_ms", begins_ms])])

    def halt(self, topic: str, partition: int, reason: str, *, drop: bool = False) -> None:
        """See :class:`services.grid.Grid`."""
        self._run([(_HALT, _keys(topic, partition)[:2], [reason, int(drop)])])

    def resume(self, topic: str, partition: int, accepted: int) -> None:
        """See :class:`services.grid.Grid`."""
        self._run([(_RESUME, _keys(topic, partition)[:1], [accepted])])

    def resumed(self, topic: str, partitions: Sequence[int]) -> list[int]:
        """See :class:`services.grid.Grid`."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.hget(meta_key(topic, partition), "resumed")
        with outages(self._where):
            return [int(count or 0) for count in pipeline.execute()]

    def status(self, topic: str, partitions: Sequence[int]) -> list[PartitionStatus]:
        """See :class:`services.grid.Grid`."""
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.hgetall(meta_key(topic, partition))
            pipeline.hlen(profiles_key(topic, partition))
        with outages(self._where):
            answers = pipeline.execute()
        return [
            status_of(p, meta, count) for p, meta, count in zip(partitions, answers[::2], answers[1::2], strict=True)
        ]

    def dump(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """See :class:`services.grid.Grid`."""
        with outages(self._where):
            return dict(self._client.hscan_iter(profiles_key(topic, partition), count=READ_CARDS_MAX))

    def check(self) -> None:
        """See :class:`services.grid.Grid`."""
        with outages(self._where):
            info = self._client.info()
        policy, role = info.get("maxmemory_policy", "noeviction"), info.get("role", "master")
        if policy != "noeviction":
            raise UnsafeGridError(f"Redis drops profiles for room: maxmemory-policy is {policy}, it must be noeviction")
        if role != "master":
            raise UnsafeGridError(f"Redis is a {role}: profiles written to it, or read from it, are not the grid's")
        self._load_scripts()

    def _load_scripts(self) -> None:
        """Make sure that the scripts are there. Raises UnsafeGridError when Redis does not take them."""
        scripts = (_CLAIM, _APPLY, _NOTE, _HALT, _RESUME)
        with outages(self._where):
            try:
                known = self._client.script_exists(*(script.sha for script in scripts))
                for script, there in zip(scripts, known, strict=True):
                    if not there:
                        self._client.script_load(script.source)
            except redis.exceptions.ResponseError as error:
                raise UnsafeGridError(f"Redis does not take the scripts of the grid: {error}") from error

    def _run(self, calls: Sequence[tuple[_Script, list[bytes], list[Any]]]) -> list[Any]:
        """Run scripts in one round trip; those that Redis does not know are loaded and run in a second one."""
        with outages(self._where):
            answers = self._pipeline(calls)
            unknown = [i for i, answer in enumerate(answers) if isinstance(answer, redis.exceptions.NoScriptError)]
            if unknown:
                for script in {calls[i][0] for i in unknown}:
                    self._client.script_load(script.source)
                for i, answer in zip(unknown, self._pipeline([calls[i] for i in unknown]), strict=True):
                    answers[i] = answer
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    def _pipeline(self, calls: Sequence[tuple[_Script, list[bytes], list[Any]]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, keys, arguments in calls:
            pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        return pipeline.execute(raise_on_error=False)


def connect(connection: GridConnection, timeout_s: float) -> Any:
    """Return a client that gives up after so long, and tries nothing again by itself: a write whose answer was lost is the worker's to repeat."""
    given = connection.arguments()
    if not connection.address.startswith("unix:"):
        given.setdefault("socket_keepalive", True)
    own = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 0,
    }
    return redis.Redis.from_url(connection.address, **given | own)


def _ask_profiles(pipeline: Any, key: bytes, wanted: Sequence[bytes]) -> None:
    for at in range(0, len(wanted), READ_CARDS_MAX):
        pipeline.hmget(key, wanted[at : at + READ_CARDS_MAX])


def _take_profiles(answers: Iterator[Any], wanted: Sequence[bytes]) -> list[bytes | None]:
    return [profile for _ in range(0, len(wanted), READ_CARDS_MAX) for profile in next(answers)]


def _ask_lookups(pipeline: Any, lookups: Sequence[Lookup]) -> None:
    for lookup in lookups:
        meta, profiles, changes = _keys(lookup.topic, lookup.partition)
        # Asked before the profiles and the changes: they may be newer than it says, never older.
        pipeline.hmget(meta, "folded_until_ms", "applied", "owner", "changes")
        _ask_profiles(pipeline, profiles, lookup.keys)
        if lookup.copied is not None:
            pipeline.xrange(changes, f"(0-{lookup.copied.changes}", "+")


def _take_found(answers: Iterator[Any], lookups: Sequence[Lookup]) -> list[Found]:
    found = []
    for lookup in lookups:
        until_ms, applied, owner, changes = next(answers)
        profiles = _take_profiles(answers, lookup.keys)
        mark = None if owner is None or changes is None else CacheStamp(owner.decode(), int(changes))
        changed = None if lookup.copied is None else changed_since(lookup.copied, mark, next(answers))
        found.append(Found(profiles, number_of(until_ms), number_of(applied), mark, changed))
    return found


def _keys(topic: str, partition: int) -> list[bytes]:
    return [meta_key(topic, partition), profiles_key(topic, partition), changes_key(topic, partition)]


def _prove(read: GridRead, meta: Sequence[bytes | None], there: int) -> None:
    owner, applied, profiles = meta
    expected = None if read.expected is None else str(read.expected).encode()
    if owner != read.claim.owner.encode() or applied != expected or there != int(profiles or 0):
        raise GridMovedError(
            f"partition {read.claim.partition} stands at {applied!r} with {there} of {profiles!r} profiles, "
            f"not at {read.expected}, or is claimed by somebody else"
        )
