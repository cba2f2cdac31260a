"""The commits of a reader in a group."""

import time
from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

_COMMIT_SECONDS: Final = 1.0


class GroupCommits(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Commits handled records: once a second, at the end, and before a partition is revoked."""

    def __init__(self, *, auto: bool) -> None:
        self.consumer: AIOKafkaConsumer | None = None
        self.done: dict[TopicPartition, int] = {}
        self._auto = auto
        self._committed_at = time.monotonic()

    async def handled(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note the offsets after the handled records; commit once a second."""
        if self._auto:
            self.done.update(ends)
            if time.monotonic() - self._committed_at >= _COMMIT_SECONDS:
                await self.commit()

    async def commit(self) -> None:
        """Commit the handled records of our partitions; another member repeats the others."""
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
        """Commit before another member begins at the group's commits."""
        await self.commit()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin at the group's commits, as the client does."""
