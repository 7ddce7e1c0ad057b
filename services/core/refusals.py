"""What an analyst reads of a refusal: why the account or the customer's own instructions forbid a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.columns import TransactionColumns, unpack_code
from services.core.money import format_amount
from services.core.standing import Refusal, Standing


@dataclass(frozen=True, slots=True)
class ToldRefusal:
    """One refusal."""

    code: str
    limit_minor: int | None
    """Up to which billing amount it would not have been made; None where the amount does not matter."""
    text: str


def describe_refusals(mask: int, row: int, standing: Standing, columns: TransactionColumns) -> Sequence[ToldRefusal]:
    """Return the refusals of one transaction of a batch, in words."""
    if not mask:  # the rule, even of what is not approved
        return []
    return [_told(refusal, row, standing, columns) for refusal in Refusal if mask >> refusal & 1]


def _told(refusal: Refusal, row: int, standing: Standing, columns: TransactionColumns) -> ToldRefusal:
    limits = {
        Refusal.INSUFFICIENT_FUNDS: (standing.spendable_minor, "that the account can spend"),
        Refusal.OVER_TRANSACTION_LIMIT: (standing.limit_minor, "of the customer's own limit per transaction"),
        Refusal.OVER_DAY_LIMIT: (standing.left_today_minor, "that the customer's own limit per day leaves"),
    }
    if refusal in limits:
        values, words = limits[refusal]
        limit, currency = max(0, int(values[row])), unpack_code(int(columns.billing_currency[row]))
        amount = format_amount(int(columns.billing_amount_minor[row]), currency)
        return ToldRefusal(refusal.name, limit, f"{amount} is more than the {format_amount(limit, currency)} {words}")
    words = {
        Refusal.ACCOUNT_NOT_ACTIVE: "the account is not active",
        Refusal.CATEGORY_BLOCKED: f"the customer blocked merchant category {int(columns.merchant_category_code[row]):04}",
        Refusal.COUNTRY_BLOCKED: f"the customer blocked payments in {unpack_code(int(columns.country[row]))}",
    }[refusal]
    return ToldRefusal(refusal.name, None, words)
