"""``python -m services.reassessor.sandbox``: tries records that may have killed a reassessor."""

from __future__ import annotations

from services.core.ladder import SafeDefault
from services.reassessor.processor import ReassessorProcessor
from services.runtime.sandbox import try_records

if __name__ == "__main__":
    try_records(ReassessorProcessor(None, SafeDefault(0.0, 0.0)))
