"""Makes a worker for each partition from the parts that all workers of a process share."""

from dataclasses import replace

from consumer.images.byte_budget import ByteBudget
from consumer.images.prepare import FetchAndDecode
from consumer.inference.engine import Engine
from consumer.partition.offsets import OffsetTracker
from consumer.partition.worker import Commit, CommitPolicy, PartitionWorker, Write
from consumer.record.dead_letters import DeadLetterRate
from consumer.record.process import Pipeline
from consumer.record.replay_window import ReplayWindow
from consumer.record.secret_proof import Refusals, SecretProof
from consumer.settings import ConsumerSettings
from consumer.telemetry.tally import OutcomeTally
from consumer.telemetry.tracing import Wrap
from schemas import Freshness, Verifier


def open_budgets(settings: ConsumerSettings) -> tuple[ByteBudget, ByteBudget]:
    """Return the memory budgets of images of the backlog and of the few images to search by.

    Fetching processes may hold the rest before it is reserved.
    """
    queries_bytes = settings.bytes_in_flight // 8
    backlog_bytes = settings.bytes_in_flight - queries_bytes - settings.unreserved_bytes
    return ByteBudget(backlog_bytes), ByteBudget(queries_bytes)


class WorkerMaker:
    """Makes workers, which share the proof of the secret, the counts and the dead letter rate."""

    def __init__(
        self,
        settings: ConsumerSettings,
        preparation: FetchAndDecode,
        queries_budget: ByteBudget,
        engine: Engine,
        write: Write,
        trace: Wrap,
    ) -> None:
        self.proof, self.refusals, self.tally = SecretProof(), Refusals(), OutcomeTally()
        self._settings = settings
        self._preparation = preparation
        self._queries_budget = queries_budget
        self._engine = engine
        self._write = write
        self._trace = trace
        self._freshness = Freshness(
            append_window_seconds=settings.append_window_seconds,
            create_window_seconds=settings.create_window_seconds,
        )
        self._dead_letter_rate = DeadLetterRate(settings.dlq_bytes_per_second)

    def make_worker(self, topic: str, offsets: OffsetTracker, commit: Commit) -> PartitionWorker:
        """Return the worker of a partition of this topic."""
        settings = self._settings
        write, commit = self._trace(self._write, commit)
        if settings.health_port is not None:
            write, commit = self.tally.wrap(write, commit)
        return PartitionWorker(
            offsets=offsets,
            work=self._pipeline(topic),
            write=write,
            commit=commit,
            policy=CommitPolicy(
                max_outcomes=settings.commit_outcomes, max_seconds=settings.commit_seconds
            ),
            records_in_flight=settings.records_in_flight,
        )

    def _pipeline(self, topic: str) -> Pipeline:
        """Return the pipeline of a topic; that of the queries topic has a budget of its own."""
        urgent = topic == self._settings.queries_topic
        preparation = self._preparation
        if urgent:
            preparation = replace(preparation, budget=self._queries_budget)
        return Pipeline(
            verifier=Verifier(self._settings.keys, topic),
            freshness=self._freshness,
            proof=self.proof,
            refusals=self.refusals,
            dead_letter_rate=self._dead_letter_rate,
            replay=ReplayWindow(self._freshness),
            preparation=preparation,
            inferences=self._engine,
            urgent=urgent,
        )
