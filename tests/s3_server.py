"""A real S3 server that checks signatures and keeps versions; one that answers as it is told."""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.client import BaseClient
from botocore.config import Config
from botocore.session import Session

from consumer.image_sources import fetch_limits, s3_options
from consumer.images.sources.s3 import S3Source, open_s3
from consumer.settings import ConsumerSettings
from tests.conftest import ROOT

PROGRAM = "build/versitygw"  # `make build/versitygw`
START_SECONDS = 20
ACCESS_KEY_ID = "the-access-key-of-the-tests"
SECRET_ACCESS_KEY = "the-secret-key-of-the-tests-0123456789"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running store; `client` is AWS's own, with which tests put objects there."""

    endpoint: str
    client: BaseClient

    def environment(self, *buckets: str) -> dict[str, str]:
        """Return the settings of a consumer that may read `buckets`."""
        return {
            "S3_BUCKETS": ",".join(buckets),
            "S3_ENDPOINT": self.endpoint,
            "S3_REGION": REGION,
            "S3_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "S3_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: a certificate for 127.0.0.1, its key, and the authority that vouches for it."""

    certificate: Path
    key: Path
    authority: Path


@contextmanager
def s3_server(folder: Path, tls: TlsFiles | None = None) -> Iterator[S3Server]:
    """Start a store that keeps its objects below `folder`."""
    subprocess.run(
        ["make", PROGRAM, f"PYTHON={sys.executable}"], cwd=ROOT, check=True, stdout=sys.stderr
    )
    for name in ("objects", "metadata", "versions"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"ROOT_ACCESS_KEY_ID": ACCESS_KEY_ID, "ROOT_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
    # Metadata beside the objects: not every file system has extended attributes.
    command: list[str] = [
        str(ROOT / PROGRAM),
        "--quiet",
        "--port",
        f"127.0.0.1:{port}",
        "--region",
        REGION,
        "posix",
    ]
    if tls:
        command[2:2] = ["--cert", str(tls.certificate), "--key", str(tls.key)]
    command += ["--sidecar", str(folder / "metadata")]
    command += ["--versioning-dir", str(folder / "versions")]
    with subprocess.Popen(
        [*command, str(folder / "objects")],
        env={**os.environ, **keys},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait_for(port)
            endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            client = _client(endpoint, str(tls.authority) if tls else None)
            yield S3Server(endpoint=endpoint, client=client)
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _client(endpoint: str, authority: str | None) -> BaseClient:
    return Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=endpoint,
        verify=authority,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Script:
    """A server that gives the same answer to every request, and keeps what it was asked."""

    reply: Reply
    endpoint: str = ""
    requests: list[bytes] = field(default_factory=list)
    _serving: set["asyncio.Task[None]"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            await self.reply(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client had enough
        finally:
            writer.close()
            self._serving.discard(task)

    async def close(self) -> None:
        """End the answers that are not complete."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@asynccontextmanager
async def scripted(
    reply: Reply | bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Script]:
    """Start a server on the loop of the test; `bytes` are the whole answer."""

    async def whole(writer: asyncio.StreamWriter) -> None:
        writer.write(reply if isinstance(reply, bytes) else b"")

    script = Script(reply=whole if isinstance(reply, bytes) else reply)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    script.endpoint = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield script
    finally:
        server.close()
        await script.close()


def answer(status: str, body: bytes = b"", **headers: Any) -> bytes:
    """Return an HTTP answer; `retry_after=3` becomes a header."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def s3_source(settings: ConsumerSettings) -> AbstractAsyncContextManager[S3Source]:
    """Return the source of these settings, not yet open."""
    return open_s3(s3_options(settings), fetch_limits(settings))
