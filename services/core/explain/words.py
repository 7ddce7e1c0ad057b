"""A feature's value in the forms that words about it may ask for."""

from __future__ import annotations

from typing import Final

from services.core.columns import ENTRY_MODES
from services.core.profiles import DAY_MS

THE_AMOUNT: Final = "the amount"
"""What the amount is called once it has been said."""
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Words:
    """What a template in braces may name; each is made when it is asked for, which is quicker than making all of them."""

    def __init__(self, value: float, window_ms: int, amount: str) -> None:
        """Take the feature's value, its window where it has one, and the formatted billing amount."""
        self.value, self.window_ms, self.amount = value, window_ms, amount

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    @property
    def span(self) -> str:
        """The window: ``24 hours``, ``7 days``, ``10 minutes``, ``hour``."""
        if self.window_ms % DAY_MS == 0:
            days = self.window_ms // DAY_MS
            return "24 hours" if days == 1 else f"{days} days"
        minutes = self.window_ms // 60_000
        return f"{minutes} minutes" if minutes != 60 else "hour"

    @property
    def known_span(self) -> str:
        """The window of what is known of a terminal, which ends as long ago as labels take."""
        return f"the {self.span} until a week ago"

    @property
    def count(self) -> str:
        """A whole number, or ``no``."""
        return f"{self.value:.0f}" if self.value > 0.5 else "no"

    @property
    def least(self) -> str:
        """At least one of a unit, as people say a distance."""
        return "less than 1" if self.value <= 0.5 else f"{self.value:,.0f}"

    @property
    def s(self) -> str:
        """The plural's ending."""
        return "s" if self.value >= 1.5 else ""

    @property
    def ies(self) -> str:
        """The ending of a word in y."""
        return "ies" if self.value >= 1.5 else "y"

    @property
    def times(self) -> str:
        """How many times something; of less than once the share."""
        return f"{self.value:,.1f} times" if self.value >= 0.995 else self.share

    @property
    def share(self) -> str:
        """What share of something, never one that reads as nothing."""
        for limit, words in ((0.01, "less than a hundredth of"), (0.1, "less than a tenth of")):
            if self.value < limit:
                return words
        return f"{self.value:.0%} of"

    @property
    def duration(self) -> str:
        """A number of seconds in the largest unit of which there are two."""
        for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
            if self.value >= 2 * size:
                return f"{self.value / size:.0f} {unit}"
        return "less than 2 seconds" if self.value < 2 else f"{self.value:.0f} seconds"

    @property
    def far(self) -> str:
        """How many standard deviations from something, and to which side."""
        side = "below" if self.value < 0.0 else "above"
        return f"{abs(self.value):,.1f} standard deviations {side}" if abs(self.value) >= 0.05 else "close to"

    @property
    def weekday(self) -> str:
        """The day's name; Monday is 0."""
        return _WEEKDAYS[int(self.value)]

    @property
    def entry_mode(self) -> str:
        """How the card was read."""
        return ENTRY_MODES[int(self.value)]
