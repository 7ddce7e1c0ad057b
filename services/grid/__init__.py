"""The grid: Redis at arm's length, its keys and scripts, a twin in memory, and the worker's near cache."""

from services.grid.base import Applied as Applied
from services.grid.base import Claim as Claim
from services.grid.base import Grid as Grid
from services.grid.base import GridUnavailableError as GridUnavailableError
from services.grid.base import GridWrite as GridWrite
from services.grid.base import RefusedClaimError as RefusedClaimError
