"""Options that several commands take."""

from typing import Annotated

import typer

ReplayWindow = Annotated[
    int,
    typer.Option(
        "--replay-window-seconds",
        min=0,
        help="How long the consumer remembers an id: twice its APPEND_WINDOW_SECONDS (twice "
        "its CREATE_WINDOW_SECONDS where the ingest topic is of CreateTime).",
    ),
]
