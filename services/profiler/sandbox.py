"""``python -m services.profiler.sandbox``: tries records that may have killed a profiler."""

from __future__ import annotations

from services.profiler.processor import ProfilerProcessor
from services.runtime.sandbox import try_records

if __name__ == "__main__":
    try_records(ProfilerProcessor())
