"""Kafka at arm's length: the contracts of source and publisher, Kafka behind them, and an in-memory twin."""

from services.streams.base import MISSING_TOPIC as MISSING_TOPIC
from services.streams.base import Assignment as Assignment
from services.streams.base import AtPlaces as AtPlaces
from services.streams.base import DamagedRecordError as DamagedRecordError
from services.streams.base import KafkaAwayError as KafkaAwayError
from services.streams.base import LogState as LogState
from services.streams.base import NoPlaceReader as NoPlaceReader
from services.streams.base import Output as Output
from services.streams.base import PlaceReader as PlaceReader
from services.streams.base import Publication as Publication
from services.streams.base import Publisher as Publisher
from services.streams.base import Records as Records
from services.streams.base import Source as Source
from services.streams.base import StreamsError as StreamsError
from services.streams.base import TopicIdentity as TopicIdentity
from services.streams.base import TopicMissingError as TopicMissingError
from services.streams.base import publish_now as publish_now
