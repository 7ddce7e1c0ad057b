"""What an analyst reads of a decline: why the account or the customer's own instructions forbid a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.columns import TransactionColumns, unpack_code
from services.core.money import format_amount
from services.core.reference.eligibility import DeclineReason, Eligibility


@dataclass(frozen=True, slots=True)
class ExplainedDecline:
    """One decline."""

    code: str
    limit_minor: int | None
    """Up to which billing amount it would not have been made; None where the amount does not matter."""
    text: str


def describe_declines(
    mask: int, row: int, eligibility: Eligibility, columns: TransactionColumns
) -> Sequence[ExplainedDecline]:
    """Return the declines of one transaction of a batch, in words."""
    if not mask:  # the rule, even of what is not approved
        return []
    return [_reported(decline, row, eligibility, columns) for decline in DeclineReason if mask >> decline & 1]


def _reported(
    decline: DeclineReason, row: int, eligibility: Eligibility, columns: TransactionColumns
) -> ExplainedDecline:
    limits = {
        DeclineReason.INSUFFICIENT_FUNDS: (eligibility.spendable_minor, "that the account can spend"),
        DeclineReason.OVER_TRANSACTION_LIMIT: (eligibility.limit_minor, "of the customer's own limit per transaction"),
        DeclineReason.OVER_DAY_LIMIT: (eligibility.left_today_minor, "that the customer's own limit per day leaves"),
    }
    if decline in limits:
        values, words = limits[decline]
        limit, currency = max(0, int(values[row])), unpack_code(int(columns.billing_currency[row]))
        amount = format_amount(int(columns.billing_amount_minor[row]), currency)
        return ExplainedDecline(
            decline.name, limit, f"{amount} is more than the {format_amount(limit, currency)} {words}"
        )
    words = {
        DeclineReason.ACCOUNT_NOT_ACTIVE: "the account is not active",
        DeclineReason.CATEGORY_BLOCKED: f"the customer blocked merchant category {int(columns.merchant_category_code[row]):04}",
        DeclineReason.COUNTRY_BLOCKED: f"the customer blocked payments in {unpack_code(int(columns.country[row]))}",
    }[decline]
    return ExplainedDecline(decline.name, None, words)
