"""Proact: decide on every card transaction while it is in flight."""

from services._kernel_cache import use_kernel_cache

use_kernel_cache()
