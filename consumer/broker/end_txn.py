"""Sends EndTxn at most once, where aiokafka would send it again."""

from typing import Any

from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.protocol.transaction import EndTxnRequest


class EndTxnUnanswered(Exception):
    """Deliberately not a KafkaError: aiokafka would send the request again."""


def send_end_txn_once(client: Any) -> None:
    """Have `client` raise `EndTxnUnanswered` for an EndTxn that got no answer.

    The request may still arrive: with the same epoch it would end the next transaction too.
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
