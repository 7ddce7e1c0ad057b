"""The grid in Redis: the only place that imports the redis client."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.grid.base import Applied, Claim, GridUnavailableError, GridWrite, RefusedClaimError
from services.grid.keys import card_keys, meta_key

_SCRIPTS = Path(__file__).parent
READ_KEYS_MAX = 5_000
"""Keys of one MGET: bounds how long Redis serves nobody else."""


class _Script:
    """A Lua script, called by its hash and sent again where Redis does not know it (it did not run then)."""

    def __init__(self, name: str) -> None:
        self.source = (_SCRIPTS / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


_CLAIM, _APPLY = _Script("claim"), _Script("apply")


@contextmanager
def _outages() -> Iterator[None]:
    """Turn the client's errors into the grid's one error: all of them are waited out."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise GridUnavailableError(f"{type(error).__name__}: {error}") from error


class RedisGrid:
    """See :class:`services.grid.Grid` for the protocol.

    The client never retries by itself: redis-py's default of ten retries runs a write again whose answer was lost. The
    worker repeats what is safe to repeat.
    """

    def __init__(self, url: str, timeout_s: float = 2.0) -> None:
        self._client: Any = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            socket_keepalive=True,
            health_check_interval=0,
        )

    def claim(self, topic: str, partition: int, topic_id: str, layout: int) -> Claim:
        """See :class:`services.grid.Grid`."""
        owner = uuid.uuid4().hex
        keys = [meta_key(topic, partition)]
        verdict, first, second = self._run([(_CLAIM, keys, [owner, topic_id, layout])])[0]
        if verdict == b"REFUSED":
            raise RefusedClaimError(
                f"the grid holds {topic} partition {partition} of topic id {first.decode()}, layout {second.decode()}; "
                f"the topic's id is {topic_id}, this code's layout {layout}"
            )
        if not second:
            # Profiles without an applied offset stand for no known point of the log: they are of no use, only of harm.
            self._clear(topic, partition)
        return Claim(partition, owner, int(first), int(second) if second else None)

    def _clear(self, topic: str, partition: int) -> None:
        with _outages():
            found = self._client.scan_iter(match=card_keys(topic, [partition], [b"*"])[0], count=READ_KEYS_MAX)
            while chunk := list(islice(found, READ_KEYS_MAX)):
                self._client.unlink(*chunk)

    def read(self, topic: str, partitions: Sequence[int], cards: Sequence[bytes]) -> list[bytes | None]:
        """See :class:`services.grid.Grid`."""
        keys = card_keys(topic, partitions, cards)
        with _outages():
            found: list[bytes | None] = []
            for at in range(0, len(keys), READ_KEYS_MAX):
                found += self._client.mget(keys[at : at + READ_KEYS_MAX])
        return found

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """See :class:`services.grid.Grid`."""
        calls = []
        for write in writes:
            partition = write.claim.partition
            keys = [meta_key(topic, partition), *card_keys(topic, [partition] * len(write.cards), write.cards)]
            expected: str | int = "" if write.expected is None else write.expected
            calls.append((_APPLY, keys, [write.claim.owner, expected, write.target, *write.profiles]))
        return [Applied[answer.decode()] for answer in self._run(calls)]

    def check(self) -> None:
        """See :class:`services.grid.Grid`."""
        with _outages():
            self._client.ping()

    def _run(self, calls: Sequence[tuple[_Script, list[bytes], list[Any]]]) -> list[Any]:
        """Run scripts in one round trip; those that Redis does not know are loaded and run in a second one."""
        with _outages():
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
