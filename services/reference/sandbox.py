"""``python -m services.reference.sandbox``: tries records that may have killed a reference service."""

from __future__ import annotations

from services.codec.reference import ACCOUNTS
from services.reference.processor import ReferenceProcessor
from services.runtime.sandbox import try_records

if __name__ == "__main__":
    try_records(ReferenceProcessor(ACCOUNTS))  # a batch says itself of which topic it is
