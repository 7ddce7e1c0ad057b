"""All faults, by their number: importing the rooms that they are in enters them into the plan."""

from tests.chaos import input_faults, kafka_faults, partition_faults, redis_faults, worker_faults
from tests.chaos.plan import FAULTS

__all__ = ["FAULTS", "input_faults", "kafka_faults", "partition_faults", "redis_faults", "worker_faults"]
