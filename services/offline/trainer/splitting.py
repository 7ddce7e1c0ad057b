"""How a history is split by time: what is learnt from, chosen by, and tested on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """A split by time: warm-up for the windows, training, a gap as long as labels take, validation and test.

    Days are whole days since the first. Nothing that a label of the training range could say is known later than the
    gap: at the first day of validation every label of the training range has arrived.
    """

    train_from: int
    train_until: int
    label_delay: int
    validate_days: int
    test_until: int

    @property
    def validate_from(self) -> int:
        """The first day of validation."""
        return self.train_until + self.label_delay

    @property
    def test_from(self) -> int:
        """The first day of the test."""
        return self.validate_from + self.validate_days

    def __post_init__(self) -> None:
        if not 0 <= self.train_from < self.train_until <= self.validate_from < self.test_from < self.test_until:
            raise ValueError(f"the history is too short to split by time: {self}")


def split_for(days: int, label_delay: int) -> Split:
    """Return a split of a history of ``days``: up to 30 days of warm-up, then about 3/5, 1/5 and 1/5 of the rest."""
    warm_up = min(30, days // 4)
    rest = days - warm_up - label_delay
    if rest < 3:
        raise ValueError(
            f"the history is too short: {days} days, of which {warm_up} fill the windows and {label_delay} pass until labels are known; "
            "give more days, or say with --label-delay-days how soon labels are known"
        )
    fifth = max(1, rest // 5)
    return Split(warm_up, warm_up + rest - 2 * fifth, label_delay, fifth, days)
