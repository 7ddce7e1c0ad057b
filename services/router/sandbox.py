"""``python -m services.router.sandbox``: tries records that may have killed a router."""

from __future__ import annotations

from services.router.processor import RouterProcessor
from services.runtime.sandbox import try_records

if __name__ == "__main__":
    try_records(RouterProcessor())
