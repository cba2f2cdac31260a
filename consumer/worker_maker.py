"""What makes a worker for each partition, of the parts that all workers of a process share."""

from dataclasses import replace
from typing import TYPE_CHECKING

from consumer.images.byte_budget import ByteBudget
from consumer.images.prepare import FetchAndDecode
from consumer.inference.engine import Engine
from consumer.partition.assigned import MakeWorker
from consumer.partition.offsets import OffsetTracker
from consumer.partition.worker import Commit, CommitPolicy, PartitionWorker, Write
from consumer.record.dead_letters import DeadLetterRate
from consumer.record.process import Pipeline
from consumer.record.replay_window import ReplayWindow
from consumer.record.results import OutcomeEncoder
from consumer.record.secret_proof import Refusals, SecretProof
from consumer.runtime.tally import OutcomeTally
from consumer.settings import ConsumerSettings
from schemas import Freshness, Signer, Verifier

if TYPE_CHECKING:
    from consumer.inference.models.load import Models


def open_budgets(settings: ConsumerSettings) -> tuple[ByteBudget, ByteBudget]:
    """Return the memory of the backlog's images, and of those to search by, which are few."""
    queries_bytes = settings.bytes_in_flight // 8
    return ByteBudget(settings.bytes_in_flight - queries_bytes), ByteBudget(queries_bytes)


def open_writer(settings: ConsumerSettings, models: "Models") -> OutcomeEncoder:
    """Return what writes outcomes, signed and with the models' names."""
    return OutcomeEncoder(
        signer=Signer(settings.keys, settings.results_topic),
        results_topic=settings.results_topic,
        dlq_topic=settings.dlq_topic,
        group_id=settings.group_id,
        embedder=models.embedder.identity,
        captioner=models.captioner.identity,
        encoding=settings.embedding_encoding,
    )


def worker_maker(
    settings: ConsumerSettings,
    preparation: FetchAndDecode,
    queries_budget: ByteBudget,
    engine: Engine,
    write: Write,
    proof: SecretProof,
    refusals: Refusals,
    tally: OutcomeTally,
) -> MakeWorker:
    """Return what makes a worker; those of the queries topic have a budget of their own."""
    freshness = Freshness(
        append_window_seconds=settings.append_window_seconds,
        create_window_seconds=settings.create_window_seconds,
    )

    letter_rate = DeadLetterRate(settings.dlq_bytes_per_second)

    def make_worker(topic: str, completion: OffsetTracker, commit: Commit) -> PartitionWorker:
        urgent = topic == settings.queries_topic
        pipeline = Pipeline(
            verifier=Verifier(settings.keys, topic),
            freshness=freshness,
            proof=proof,
            refusals=refusals,
            letter_rate=letter_rate,
            replay=ReplayWindow(freshness),
            preparation=replace(preparation, budget=queries_budget) if urgent else preparation,
            inferences=engine,
            urgent=urgent,
        )
        # Not `write` itself, which is that of all workers.
        counts = settings.health_port is not None
        own_write, commit = tally.around(write, commit) if counts else (write, commit)
        return PartitionWorker(
            completion=completion,
            work=pipeline,
            write=own_write,
            commit=commit,
            policy=CommitPolicy(
                max_outcomes=settings.commit_outcomes, max_seconds=settings.commit_seconds
            ),
            records_in_flight=settings.records_in_flight,
        )

    return make_worker
