"""What a reader in a group commits, and when."""

import time
from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

_COMMIT_SECONDS: Final = 1.0


class GroupCommits(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's types are not seen
    """Commits what was handled: once a second, at the end, and before a partition is given away."""

    def __init__(self, *, auto: bool) -> None:
        self.consumer: AIOKafkaConsumer | None = None
        self.done: dict[TopicPartition, int] = {}
        self._auto = auto
        self._committed_at = time.monotonic()

    async def handled(self, ends: Mapping[TopicPartition, int]) -> None:
        """Take in the offsets behind what was handled."""
        if self._auto:
            self.done.update(ends)
            if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
                await self.commit()

    async def commit(self) -> None:
        """Commit what was handled and is still ours; what is not comes to another member again."""
        self._committed_at = time.monotonic()
        if self.consumer is None or not self.done:
            return
        done, self.done = self.done, {}
        ours = {one: at for one, at in done.items() if one in self.consumer.assignment()}
        try:
            if ours:
                await self.consumer.commit(ours)
        except (CommitFailedError, IllegalStateError):
            return

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Commit before others begin where the commits end."""
        await self.commit()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin at the group's commits, as the client does."""
