"""The `status` command: the progress of the consumers as a table or as JSON."""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
import typer

from imagelane.exits import ExitCode
from imagelane.kafka.groups import Group
from imagelane.terminal import json_line, say
from producer.cli.settings import load_settings
from producer.cli.times import unix_seconds
from producer.settings import StatusSettings
from producer.status import DeadLetters, Fault, LastResult, PartitionStatus, Status
from producer.status_reader import MAX_DEAD_LETTERS, day_ago, read_status

_UUID: Final = re.compile(r"\b([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object in one line.")] = False,
    since: Annotated[
        float | None,
        typer.Option(
            parser=unix_seconds,
            metavar="TIME",
            help="Dead letters since: UNIX or ISO (UTC). A day if not given.",
        ),
    ] = None,
) -> None:
    """Show members, backlog, last result and dead letters.

    For the group GROUP_ID. `backlog`: records without an outcome; `open`: those of them below the
    highest done one, in work or waiting for a slow host. Kafka's own lag also counts done records
    above the committed position, so it is larger. With `<=` a backlog of more than 100 may count
    markers of transactions.

    Needs no secret; without one the last result is not verified. Dead letters are not signed, so
    anybody may have written their codes. An unknown part has a line on stderr, and the command ends
    with the exit code of the first: 1: no such group, 67: a right is missing, 69: no broker
    answers, 72: no such topic.

    \b
    Examples:
      imagelane status
      imagelane status --json --since 2026-11-26T08:00 | jq .partitions
    """
    settings = load_settings(context, StatusSettings)
    found = asyncio.run(read_status(settings, since=day_ago() if since is None else since))
    lines = [json_line(document(found))] if as_json else table(found, settings, time.time())
    for line in lines:
        say(line)
    for name, fault in found.faults.items():
        say(f"imagelane: {name.replace('_', ' ')}: {fault.reason}", err=True)
    raise typer.Exit(next((fault.code for fault in found.faults.values()), ExitCode.OK))


def document(status: Status) -> str:
    """Return the status as JSON; an unknown part is an object with `error`."""
    parts: dict[str, Any] = {
        "group": status.group,
        "partitions": status.partitions,
        "last_result": status.last_result,
        "dead_letters": status.dead_letters,
    }
    return orjson.dumps({name: _plain(part) for name, part in parts.items()}).decode()


def _plain(part: Any) -> Any:
    if isinstance(part, Fault):
        return {"error": {"exit_code": int(part.code), "reason": part.reason}}
    if isinstance(part, tuple):
        return [asdict(one) for one in part]
    if isinstance(part, Group):
        members = [
            {
                **asdict(member),
                "partitions": [[one.topic, one.partition] for one in member.partitions],
            }
            for member in part.members
        ]
        return {"group_id": part.group_id, "state": part.state, "members": members}
    return None if part is None else asdict(part)


def table(status: Status, settings: StatusSettings, now: float) -> list[str]:
    """Return the status as lines for a person; `now` in Unix seconds."""
    is_verified = bool(settings.secret_api_key.get_secret_value())
    return [
        *_group_lines(status.group),
        *_partition_lines(status.partitions),
        _last_line(status.last_result, now, is_verified=is_verified),
        _dead_letters_line(status.dead_letters),
    ]


def _group_lines(group: Group | Fault) -> list[str]:
    if isinstance(group, Fault):
        return ["group: not known"]
    count = len(group.members)
    members = f"{count} member{'' if count == 1 else 's'}"
    lines = [f"group {group.group_id}: {group.state.lower()}, {members}"]
    rows = [
        (
            member.instance_id or _short(member.member_id),
            member.client_id,
            member.host.removeprefix("/"),
            " ".join(f"{one.topic}[{one.partition}]" for one in member.partitions)
            or "none (spare)",
        )
        for member in group.members
    ]
    return lines + _columns(("member", "client", "host", "partitions"), rows) if rows else lines


def _short(member: str) -> str:
    """Return a member's name with the first part of its UUID, if it ends in one."""
    return _UUID.sub(r"\1", member)


def _partition_lines(partitions: Sequence[PartitionStatus] | Fault) -> list[str]:
    if isinstance(partitions, Fault):
        return ["partitions: not known"]
    rows = [
        (
            f"{one.topic}[{one.partition}]",
            _short(one.member) if one.member else "none",
            "none" if one.position is None else str(one.position),
            str(one.end),
            _backlog(one.backlog, is_exact=one.is_exact),
            str(one.open),
        )
        for one in partitions
    ]
    total = _backlog(
        sum(one.backlog for one in partitions), is_exact=all(one.is_exact for one in partitions)
    )
    rows.append(("all", "", "", "", total, str(sum(one.open for one in partitions))))
    heads = ("partition", "member", "position", "end", "backlog", "open")
    withheld = [
        f"{one.topic}[{one.partition}]: {one.withheld} offsets more wait behind an open "
        "transaction; kafka-transactions.sh shows whose, and aborts it"
        for one in partitions
        if one.withheld
    ]
    return _columns(heads, rows, right=4) + withheld


def _backlog(count: int, *, is_exact: bool) -> str:
    return str(count) if is_exact else f"<={count}"


def _last_line(last: LastResult | Fault | None, now: float, *, is_verified: bool) -> str:
    if isinstance(last, Fault):
        return "last result: not known"
    if last is None:
        return "last result: none that verifies" if is_verified else "last result: none"
    age = f"{max(0, now - last.appended_at):.0f} s ago"
    place = f"{last.topic}[{last.partition}]@{last.offset}"
    if last.id is None:
        return f"last result: {age}, {place}, not verified: no SECRET_API_KEY"
    return f"last result: {last.status}, {age}, {place}, id {last.id}"


def _dead_letters_line(dead_letters: DeadLetters | Fault) -> str:
    if isinstance(dead_letters, Fault):
        return "dead letters: not known"
    since = f"{datetime.fromtimestamp(dead_letters.since, UTC):%Y-%m-%d %H:%M} UTC"
    codes = ", ".join(f"{code} {count}" for code, count in dead_letters.by_code.items())
    total = sum(dead_letters.by_code.values())
    cut = (
        f"; of each partition the latest {MAX_DEAD_LETTERS} offsets alone"
        if dead_letters.is_cut
        else ""
    )
    return f"dead letters since {since}: {total}{f' ({codes})' if codes else ''}{cut}"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> list[str]:
    """Align the columns, the last `right` of them to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    left = len(heads) - right
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]
