"""What is up while the demo runs, and down after it: folder, broker, topics, consumer, reader."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from examples.demo.outputs import open_outputs
from examples.demo.plan import MOST_PICTURES, Picture, Plan
from examples.demo.screen import Screen
from examples.demo.steps import Demo
from examples.processes import running_broker, running_consumer, while_running
from imagelane.exits import ExitCode, FatalError
from producer import ProducerSettings
from producer.connection import administration
from producer.topics import TopicState, ensure_topics, topic_plans

_LOG_LINES: Final = 20


async def run(plan: Plan, screen: Screen, environment: Mapping[str, str]) -> list[str]:
    """Run the demo and return what was not as expected; everything is down when it returns.

    Raises:
        FatalError: it could not go on; with the reason. The consumer's last log lines are shown.
    """
    pictures = plan.good()
    async with AsyncExitStack() as stack:
        screen.section("1. What is started")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imagelane-demo-")))
        bootstrap = plan.bootstrap
        if bootstrap is None:
            broker = await stack.enter_async_context(running_broker(folder / "broker"))
            bootstrap = broker.address
        wire = plan.wire(bootstrap, secrets.token_hex(32))
        settings = ProducerSettings.from_env(wire)
        await stack.enter_async_context(_topics(plan, settings))
        _say_where(plan, screen, bootstrap)
        consumer = await stack.enter_async_context(
            running_consumer({**environment, **wire, **plan.consumer()}, folder)
        )
        screen.step("the consumer starts: python -m consumer (torch takes most of it)")
        demo = Demo(
            plan=plan,
            screen=screen,
            consumer=consumer,
            outputs=await stack.enter_async_context(open_outputs(settings)),
            settings=settings,
            other_secret=ProducerSettings.from_env(plan.wire(bootstrap, secrets.token_hex(32))),
            pictures=_first(pictures, screen),
        )
        try:
            await while_running(consumer, demo.run())
            await demo.stop()
        except BaseException:
            screen.section("The end of the consumer's log")
            for line in consumer.lines[-_LOG_LINES:]:
                screen.say(line)
            raise
    return demo.faults


def _say_where(plan: Plan, screen: Screen, bootstrap: str) -> None:
    if plan.bootstrap is None:
        screen.step(f"the embedded broker is up at {bootstrap} (for demos; not Kafka)")
    else:
        screen.step(f"the cluster at {bootstrap}; the demo's own topics go when it ends")
    topics = ", ".join((plan.ingest_topic, plan.queries_topic, plan.results_topic, plan.dlq_topic))
    screen.step(f"topics: {topics}; a fresh random secret for both sides")


def _first(pictures: list[Picture], screen: Screen) -> list[Picture]:
    if len(pictures) > MOST_PICTURES:
        screen.say(f"the first {MOST_PICTURES} of the {len(pictures)} pictures are taken", "yellow")
    return pictures[:MOST_PICTURES]


@asynccontextmanager
async def _topics(plan: Plan, settings: ProducerSettings) -> AsyncIterator[None]:
    """Create the topics; on somebody's cluster, delete them again."""
    reports = await ensure_topics(settings, topic_plans(settings, partitions=1, replication=None))
    if any(report.state is not TopicState.CREATED for report in reports):
        raise FatalError(ExitCode.TOPIC, "a topic of the demo's name is there already")
    try:
        yield
    finally:
        if plan.bootstrap is not None:
            async with administration(settings) as admin:
                await admin.delete_topics([report.name for report in reports])
