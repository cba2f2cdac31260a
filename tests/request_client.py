"""A client without our library: signs and publishes requests, reads and verifies results."""

import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import (
    KeyRing,
    Request,
    Result,
    Signer,
    Verifier,
    decode_result,
    encode_request,
)
from tests.conftest import Topics
from tests.consumer_process import PATIENCE_SECONDS


class Client:
    """Publishes requests and reads the verified results, in the order of the topic."""

    def __init__(self, bootstrap: str, topics: Topics, secret: str) -> None:
        self._keys = KeyRing(current_id="k1", secrets={"k1": secret.encode()})
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level="read_committed"
        )
        self._verifier = Verifier(self._keys, topics.results)
        self._partition = TopicPartition(topics.results, 0)
        self.results: dict[str, Result] = {}

    async def __aenter__(self) -> "Client":
        await self._producer.start()
        await self._consumer.start()
        self._consumer.assign([self._partition])
        await self._consumer.seek_to_beginning(self._partition)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def send(self, topic: str, *requests: Request) -> None:
        """Publish all of them, in order."""
        signer, now = Signer(self._keys, topic), int(time.time())
        for request in requests:
            value = encode_request(request)
            headers = signer.sign(id=request.id, timestamp=now, key=None, value=value)
            await self._producer.send(topic, value, headers=headers)
        await self._producer.flush()

    async def wait_for(self, *ids: str) -> Mapping[str, Result]:
        """Return the results once all of `ids` are there, keyed by id in order of arrival.

        Gives up when no result has come for a minute.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := set(ids) - self.results.keys():
            assert time.monotonic() < deadline, f"no result of {sorted(missing)[:5]}"
            batches = await self._consumer.getmany(timeout_ms=200)
            if batches:
                deadline = time.monotonic() + PATIENCE_SECONDS
            for batch in batches.values():
                for record in batch:
                    signed = self._verifier.verify(record.headers, record.key, record.value)
                    assert signed.id not in self.results
                    self.results[signed.id] = decode_result(record.value)
        return self.results
