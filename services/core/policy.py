"""From a score to an action, and the identity of a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_f64, type_i64, type_u8


class Action(IntEnum):
    """What is done with a transaction; in the order of the Avro enum, which is that of severity."""

    APPROVE = 0
    CHALLENGE = 1
    REVIEW = 2
    BLOCK = 3


class DecisionSource(IntEnum):
    """Whose word a decision was; in the order of the Avro enum."""

    MODEL = 0
    ANOMALY = 1
    """The model approved, and the transaction is unlike all that was seen: people look at it."""
    RULE = 2
    ACCOUNT = 3
    """The account cannot pay, or must not."""
    CUSTOMER = 4
    """The customer's own instructions forbid it."""
    DEFAULT = 5
    """Nobody else could speak: the amount alone decided."""


class Severity(IntEnum):
    """How much an alert is about; in the order of the Avro enum."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2


class AlertKind(IntEnum):
    """What an alert is about; in the order of the Avro enum."""

    FRAUD = 0
    """Model, anomaly score or rules would not have approved the transaction, whatever account and customer say."""
    DECLINE = 1
    """They would have: the account, or the customer's own instructions, alone forbid it."""


SEVERITY_OF_ACTION: Final = np.array([Severity.LOW, Severity.LOW, Severity.MEDIUM, Severity.HIGH], np.int64)
"""The alert's :class:`Severity` by what model, anomaly score and rules alone would have done: a decline for funds is no likely fraud."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least score of each action; they come with the model, since scores of two models do not compare."""

    challenge: float
    review: float
    block: float

    def __post_init__(self) -> None:
        if not 0.0 < self.challenge <= self.review <= self.block <= 1.0:
            raise ValueError(f"thresholds must ascend within (0, 1]: {self}")

    def actions(self, scores: type_f64) -> type_i64:
        """Return the :class:`Action` of each score."""
        return np.searchsorted([self.challenge, self.review, self.block], scores, side="right").astype(np.int64)


def escalate_anomalies(actions: type_i64, anomalous: type_bool) -> type_i64:
    """Return what is done: what would be approved and is anomalous goes to review; all else stays."""
    return np.where(anomalous & (actions == Action.APPROVE), np.int64(Action.REVIEW), actions)


_NAMESPACE: Final = np.frombuffer(bytes.fromhex("5d1c7a90e3b64f28a1c40b9be2f7d635"), np.uint8)


def decision_ids(transaction_ids: type_u8) -> type_u8:
    """Return the decision id of each transaction id, shape (n, 16): a UUID of version 8 (RFC 9562).

    The id is a function of the transaction alone, so a decision that is made again, after a crash or for a repeat, is
    recognised. The exclusive-or keeps ids apart as long as the transactions' ids differ outside the six bits that mark
    version and variant, which all UUIDs of one version share.
    """
    return _decision_ids(transaction_ids, _NAMESPACE)


@njit(cache=True, nogil=True)
def _decision_ids(transaction_ids: type_u8, namespace: type_u8) -> type_u8:
    ids = np.empty(transaction_ids.shape, np.uint8)
    for i in range(len(ids)):
        for j in range(16):
            ids[i, j] = transaction_ids[i, j] ^ namespace[j]
        ids[i, 6] = (ids[i, 6] & 0x0F) | 0x80
        ids[i, 8] = (ids[i, 8] & 0x3F) | 0x80
    return ids
