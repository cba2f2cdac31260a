"""The rebalance listener. It reports exceptions itself, since aiokafka swallows them."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from imagelane.exits import FatalError
from imagelane.kafka.errors import answers_needed

log = structlog.get_logger()


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Calls `assign` and `revoke`, and `fail` with their exceptions."""

    def __init__(
        self,
        *,
        assign: Callable[[Sequence[TopicPartition]], Awaitable[None]],
        revoke: Callable[[], Awaitable[None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._assign, self._revoke, self._fail = assign, revoke, fail

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Open the assigned partitions."""
        try:
            with answers_needed("opening assigned partitions"):
                await self._assign(sorted(assigned))
        except FatalError as exc:
            self._fail(exc)
        except BaseException as exc:
            self._fail(exc)
            raise

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Close all partitions, before the group gives them to other members."""
        try:
            if revoked:
                log.info("partitions revoked", partitions=[f"{t}-{p}" for t, p in sorted(revoked)])
            await self._revoke()
        except BaseException as exc:
            self._fail(exc)
            raise
