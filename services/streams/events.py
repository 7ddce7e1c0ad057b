"""What the error events of a consumer mean, in one table, for Kafka's client and for its twin in memory.

A consumer delivers errors where records are expected. None of them may end a worker: each one is dropped, waited out, or answered
by beginning again from what Kafka says is committed, so that taking the partitions over decides what is to be done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.streams.base import DamagedRecordError, StreamsError

log = logging.getLogger("proact.kafka")


class Meaning(Enum):
    """What an error event asks for."""

    NOTICE = "the client goes on by itself, and nothing was skipped"
    OUTAGE = "Kafka refuses what it may grant again: waited out by beginning again from the committed offsets"
    GAP = (
        "what comes next need not follow what came before: taking over again finds out, and halts what cannot be proved"
    )
    DAMAGED = "a record cannot be read, and the client skips it: read again, and halted where it stays so"
    MEMBERSHIP_LOST = "the group gives the partitions to others: they are given up, and the client joins again"
    FATAL = "the client is of no use any more: a new one takes its place, in the same process"


NOTICES: Final = {
    "_PARTITION_EOF": "the end of a partition is no error",
    "_TRANSPORT": "a connection broke: the client connects again",
    "_ALL_BROKERS_DOWN": "the same, of every broker",
    "_RESOLVE": "a broker's name does not resolve for now",
    "_TIMED_OUT": "a request is sent again",
    "_TIMED_OUT_QUEUE": "a request that waited too long is sent again",
    "_MSG_TIMED_OUT": "of a request that is sent again; a record that is read has no time limit",
    "_RETRY": "sent again",
    "_IN_PROGRESS": "not answered yet",
    "_PREV_IN_PROGRESS": "not answered yet",
    "_WAIT_COORD": "the group has no coordinator yet",
    "_WAIT_CACHE": "metadata are on their way",
    "_NODE_UPDATE": "a broker has another address",
    "_DESTROY_BROKER": "a broker left the cluster",
    "_UNKNOWN_BROKER": "a broker left the cluster",
    "_INTR": "a wait was interrupted",
    "_NOOP": "nothing happened",
    "_PARTIAL": "the rest of an answer is fetched again",
    "_UNDERFLOW": "the rest of an answer is fetched again",
    "_OUTDATED": "an answer to an earlier request",
    "_ASSIGN_PARTITIONS": "a rebalance is reported by its callback",
    "_REVOKE_PARTITIONS": "a rebalance is reported by its callback",
    "NO_ERROR": "none",
    "LEADER_NOT_AVAILABLE": "a partition's leader moves",
    "NOT_LEADER_FOR_PARTITION": "a partition's leader moved",
    "FENCED_LEADER_EPOCH": "a partition's leader moved",
    "UNKNOWN_LEADER_EPOCH": "a partition's leader moved, and not every broker knows yet",
    "BROKER_NOT_AVAILABLE": "a broker is away",
    "REPLICA_NOT_AVAILABLE": "a replica is away",
    "PREFERRED_LEADER_NOT_AVAILABLE": "a replica is away",
    "LISTENER_NOT_FOUND": "a partition's leader moves to a broker that has no such listener yet",
    "OFFSET_NOT_AVAILABLE": "a new leader does not know its end yet",
    "NOT_ENOUGH_REPLICAS": "replicas are away",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": "replicas are away",
    "REQUEST_TIMED_OUT": "a request is sent again",
    "NETWORK_EXCEPTION": "a connection broke",
    "COORDINATOR_LOAD_IN_PROGRESS": "the group's coordinator moves",
    "COORDINATOR_NOT_AVAILABLE": "the group's coordinator moves",
    "NOT_COORDINATOR": "the group's coordinator moved",
    "NOT_CONTROLLER": "the controller moved",
    "REBALANCE_IN_PROGRESS": "the rebalance itself is reported by its callback",
    "MEMBER_ID_REQUIRED": "a step of joining",
    "UNSTABLE_OFFSET_COMMIT": "asked again when the open commit has ended",
    "CONCURRENT_TRANSACTIONS": "asked again when the open commit has ended",
    "FETCH_SESSION_ID_NOT_FOUND": "the client begins another fetch session",
    "INVALID_FETCH_SESSION_EPOCH": "the client begins another fetch session",
    "THROTTLING_QUOTA_EXCEEDED": "Kafka slows the client down",
    "REBOOTSTRAP_REQUIRED": "the client begins with the bootstrap servers again",
    "STALE_BROKER_EPOCH": "a broker starts",
    "STALE_CTRL_EPOCH": "the controller moved",
}
"""With the reason why nothing needs to be done."""
GAPS: Final = {
    "_AUTO_OFFSET_RESET": "the next offset is not in the log: deleted, or never written",
    "OFFSET_OUT_OF_RANGE": "the same, as the broker says it",
    "_LOG_TRUNCATION": "the log lost its end",
    "_NO_OFFSET": "there is no offset to go on from",
    "UNKNOWN_TOPIC_OR_PART": "the topic is gone, or has become another one",
    "_UNKNOWN_TOPIC": "the topic is gone",
    "_UNKNOWN_PARTITION": "the partition is gone",
    "UNKNOWN_TOPIC_ID": "the topic was made anew",
    "INCONSISTENT_TOPIC_ID": "the topic was made anew",
    "TOPIC_EXCEPTION": "the topic's name is none: it cannot be there",
    "_GAPLESS_GUARANTEE": "records were lost in between",
}
DAMAGES: Final = {
    "_BAD_MSG": "a batch's checksum or form is wrong",
    "INVALID_MSG": "the same, as the broker says it of its own log",
    "INVALID_MSG_SIZE": "a batch's length is wrong",
    "INVALID_RECORD": "a record's form is wrong",
    "_BAD_COMPRESSION": "a batch cannot be decompressed",
    "UNSUPPORTED_COMPRESSION_TYPE": "a batch is compressed in a way that the client does not know",
    "_NOT_IMPLEMENTED": "a batch's format is one that the client does not know",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "a batch's format is one that the broker does not know",
    "MSG_SIZE_TOO_LARGE": "a record is larger than the client takes",
    "RECORD_LIST_TOO_LARGE": "a batch is larger than the client takes",
    "_KEY_DESERIALIZATION": "no deserializer is set; if there were one: the record",
    "_VALUE_DESERIALIZATION": "no deserializer is set; if there were one: the record",
}
LOSSES: Final = {
    "_MAX_POLL_EXCEEDED": "the worker did not poll for too long: frozen, or stuck",
    "_ASSIGNMENT_LOST": "the group went on without this member",
    "ILLEGAL_GENERATION": "the group went on without this member",
    "UNKNOWN_MEMBER_ID": "the group does not know this member any more",
    "FENCED_MEMBER_EPOCH": "the group went on without this member",
    "STALE_MEMBER_EPOCH": "the group went on without this member",
    "FENCED_STATE_EPOCH": "the group went on without this member",
    "GROUP_ID_NOT_FOUND": "the group was deleted",
    "NON_EMPTY_GROUP": "the group is not what this member takes it for",
    "UNKNOWN_SUBSCRIPTION_ID": "the group does not know this member any more",
}
FATALS: Final = {
    "_FATAL": "as the client says",
    "FENCED_INSTANCE_ID": "another member has this one's name; the newest one counts",
    "_FENCED": "another client took this one's place",
    "_DESTROY": "the client ends",
    "_CRIT_SYS_RESOURCE": "the client could not start one of its threads",
    "_STATE": "the client is in a state in which it does nothing",
}
_TABLE: Final[dict[str, Meaning]] = {
    **dict.fromkeys(NOTICES, Meaning.NOTICE),
    **dict.fromkeys(GAPS, Meaning.GAP),
    **dict.fromkeys(DAMAGES, Meaning.DAMAGED),
    **dict.fromkeys(LOSSES, Meaning.MEMBERSHIP_LOST),
    **dict.fromkeys(FATALS, Meaning.FATAL),
}


def meaning_of(name: str, *, fatal: bool = False) -> Meaning:
    """Return what an error event of this name means; the client's own word that it is fatal counts more.

    Whatever is not in the table is an outage, such as all that Kafka refuses for want of rights: to begin again from the committed
    offsets is right after any error, and the worker is not ready meanwhile.
    """
    return Meaning.FATAL if fatal else _TABLE.get(name, Meaning.OUTAGE)


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An error that a consumer delivered."""

    name: str
    """Of the client's or the broker's error code."""
    words: str = ""
    fatal: bool = False
    partition: int = -1
    """Negative where it is not about one."""
    offset: int = -1

    def __str__(self) -> str:
        return f"{self.name}: {self.words}" if self.words else self.name

    @property
    def meaning(self) -> Meaning:
        """What it asks for."""
        return meaning_of(self.name, fatal=self.fatal)


class ErrorEvents:
    """Does what error events ask for, for one source."""

    def __init__(self, lose: Callable[[], None], renew: Callable[[], None]) -> None:
        """Call ``lose`` to give the assignment up as void, ``renew`` to put a new client in the place of a useless one."""
        self._lose, self._renew = lose, renew

    def take(self, event: ErrorEvent) -> None:
        """Do what an event asks for; the source goes on from there.

        Raises:
            DamagedRecordError: a record cannot be read.
            StreamsError: the partitions are to be taken over again.
        """
        meaning = event.meaning
        if meaning is Meaning.NOTICE:
            log.debug("the consumer tells of an error that needs nothing to be done: %s", event)
        elif meaning is Meaning.MEMBERSHIP_LOST:
            log.warning("the group has lost this member: %s", event)
            self._lose()
        elif meaning is Meaning.FATAL:
            log.error("the consumer is of no use any more, a new one takes its place: %s", event)
            self._renew()
            raise StreamsError(str(event))
        elif meaning is Meaning.DAMAGED and event.partition >= 0:
            raise DamagedRecordError(str(event), event.partition, event.offset)
        else:
            raise StreamsError(str(event))
