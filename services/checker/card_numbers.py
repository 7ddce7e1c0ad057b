"""What may not be in a record: card numbers; the checker's own definition, from the networks' ranges."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final


@lru_cache(maxsize=1 << 18)  # cards and terminals come again and again, and a run is millions of records
def token_ok(text: str, *, optional: bool = False) -> bool:
    """Whether this is a token: 1 to 64 bytes, no control characters, nothing that could be a card number."""
    raw = text.encode()
    if not raw:
        return optional
    if len(raw) > 64 or any(b < 32 or b == 127 for b in raw):
        return False
    return not holds_card_number(text)


# Of the networks that give out cards: how their numbers begin, and how long they are.
_OF_A_NETWORK: Final = re.compile(
    r"220[0-4]\d{12,15}|(222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|(30[0-5]\d|3095|36\d\d|3[89]\d\d)\d{10,15}"
    r"|3[47]\d{13}|35(2[89]|[3-8]\d)\d{12,15}|4\d{12,18}|5[1-5]\d{14}|(50|5[6-9]|6\d)\d{11,17}|8[12]\d{14,17}"
    r"|9704\d{12,15}|(8600|9792|9860)\d{12}"
)
_DIGEST: Final = re.compile(
    r"(?!(\d-?){13})(?=.*[a-fA-F])([\da-fA-F]{32}|[\da-fA-F]{40}|[\da-fA-F]{64}|[\da-fA-F]{8}(-[\da-fA-F]{4}){3}-[\da-fA-F]{12})",
    re.ASCII,
)


def holds_card_number(text: str) -> bool:
    """Whether groups of digits, in any script, with no letter of ASCII between them, make a card number."""
    if len(re.findall(r"\d", text)) < 13 or _DIGEST.fullmatch(text):
        return False
    for words in re.split("[A-Za-z]", text):
        groups = ["".join(str(unicodedata.decimal(c)) for c in group) for group in re.findall(r"\d+", words)]
        for i in range(len(groups)):
            for j in range(i, len(groups)):
                number = "".join(groups[i : j + 1])
                if _OF_A_NETWORK.fullmatch(number) and _luhn(number):
                    return True
    return False


def _luhn(number: str) -> bool:
    digits = [int(c) for c in reversed(number)]
    return sum(d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(digits)) % 10 == 0
