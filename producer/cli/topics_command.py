"""The `topics` command."""

import asyncio
from typing import Annotated

import typer

from imagelane.exits import ExitCode
from imagelane.terminal import say
from producer.cli.settings import load_settings
from producer.settings import TopicSettings
from producer.topics import PARTITIONS, TIMESTAMP_TYPE, TopicReport, ensure_topics, topic_plans


def topics(
    context: typer.Context,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Of ingest and results: one for each GPU. 1 if new."),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(min=1, help="Copies of each partition: 3 in production. 1 if new."),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Set the settings of topics that exist and differ.")
    ] = False,
) -> None:
    """Create the topics; say what exists and what differs.

    Changes no existing topic without --fix, and never partitions. Needs no secret. Ends with 1 if
    the ingest topic has no LogAppendTime, for then the broker's clock does not judge freshness, or
    if a topic has another number of partitions than --partitions; a line shows the command that
    adds some.

    \b
    Example:
      imagelane topics --partitions 4 --replication 3
      imagelane topics --fix
    """
    settings = load_settings(context, TopicSettings)
    plans = topic_plans(settings, partitions=partitions, replication=replication)
    reports = asyncio.run(ensure_topics(settings, plans, fix=fix))
    brokers, failed = ",".join(settings.bootstrap_servers), False
    for report in reports:
        say(_topic_line(report))
        for difference in report.differences:
            failed |= difference.setting in (TIMESTAMP_TYPE, PARTITIONS)
            if difference.setting == PARTITIONS and int(difference.wanted) > int(difference.found):
                say(
                    f"  kafka-topics.sh --bootstrap-server {brokers} --alter "
                    f"--topic {report.name} --partitions {difference.wanted}"
                )
    raise typer.Exit(ExitCode.FAILED if failed else ExitCode.OK)


def _topic_line(report: TopicReport) -> str:
    details = "; ".join(
        f"{difference.setting} is {difference.found}, wanted {difference.wanted}"
        for difference in report.differences
    )
    return f"{report.name}: {report.state}" + (f" ({details}); left as it is" if details else "")
