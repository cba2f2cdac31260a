"""EndTxn, which must reach a broker once at most."""

from typing import Any

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.protocol.transaction import EndTxnRequest


class EndTxnUnanswered(Exception):
    """No KafkaError, which aiokafka would answer by sending the request again."""


def end_once(client: Any) -> None:
    """Let a lost connection end the producer instead of sending EndTxn again.

    The first one may still be on its way; with the same epoch it would end the next transaction.
    """
    send = client.send

    async def send_once(node_id: int, request: Any, **options: Any) -> Any:
        try:
            return await send(node_id, request, **options)
        except (KafkaConnectionError, RequestTimedOutError) as exc:
            if isinstance(request, EndTxnRequest):
                raise EndTxnUnanswered from exc
            raise

    client.send = send_once
