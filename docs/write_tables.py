"""`python docs/write_tables.py` writes the tables of settings and metrics from the code."""

import re
from pathlib import Path

from consumer.settings import ConsumerSettings
from consumer.telemetry import metrics
from imagelane.settings import WireSettings
from imagelane.settings_table import settings_table
from producer.gallery.settings import GallerySettings
from producer.settings import ProducerSettings

README = Path(__file__).parent.parent / "README.md"
METRICS = Path(__file__).parent / "metrics.md"
TABLES = {
    "consumer": settings_table(ConsumerSettings),
    "producer": settings_table(ProducerSettings, without=WireSettings.model_fields),
    "gallery": settings_table(GallerySettings, without=ProducerSettings.model_fields),
}


def table_in(text: str, side: str) -> re.Match[str]:
    """Return where the table of one side stands."""
    pattern = rf"(?<=<!-- settings: {side} -->\n).*?(?=\n<!-- end -->)"
    found = re.search(pattern, text, re.DOTALL)
    assert found, f"no table of the {side} in the README"
    return found


def metrics_in(text: str) -> re.Match[str]:
    """Return where the table of the metrics stands."""
    found = re.search(r"(?<=<!-- metrics -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
    assert found, "no table of metrics"
    return found


if __name__ == "__main__":
    text = README.read_text()
    for side, table in TABLES.items():
        match = table_in(text, side)
        text = text[: match.start()] + table + text[match.end() :]
    README.write_text(text)
    text = METRICS.read_text()
    match = metrics_in(text)
    METRICS.write_text(text[: match.start()] + metrics.table() + "\n" + text[match.end() :])
