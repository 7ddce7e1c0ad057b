"""The grid: Redis at arm's length, its keys and scripts, a twin in memory, and the worker's near cache."""

from services.grid.base import Applied as Applied
from services.grid.base import Attempt as Attempt
from services.grid.base import CacheStamp as CacheStamp
from services.grid.base import Claim as Claim
from services.grid.base import Found as Found
from services.grid.base import Grid as Grid
from services.grid.base import GridAnswer as GridAnswer
from services.grid.base import GridAwayError as GridAwayError
from services.grid.base import GridMovedError as GridMovedError
from services.grid.base import GridRead as GridRead
from services.grid.base import GridRefusedError as GridRefusedError
from services.grid.base import GridUnavailableError as GridUnavailableError
from services.grid.base import GridWrite as GridWrite
from services.grid.base import HaltedError as HaltedError
from services.grid.base import LogIdentity as LogIdentity
from services.grid.base import Lookup as Lookup
from services.grid.base import PartitionStatus as PartitionStatus
from services.grid.base import RefusedClaimError as RefusedClaimError
from services.grid.base import UnsafeGridError as UnsafeGridError
