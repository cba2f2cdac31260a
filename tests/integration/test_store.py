"""`s3:` references against a real S3 server, which checks signatures and keeps versions."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trustme

from consumer.errors import Failed, Unavailable
from consumer.images.byte_budget import ByteBudget
from consumer.images.sources.s3 import S3Source
from consumer.settings import ConsumerSettings
from schemas import Code
from tests.conftest import ROOT
from tests.fakes import SECRET, fetched, fetching
from tests.s3_server import (
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
    S3Server,
    Script,
    TlsFiles,
    answer,
    s3_server,
    s3_source,
    scripted,
)

pytestmark = pytest.mark.integration

LIMIT = 1 << 20
# A consumer's whole way to an object, as a process of its own: its environment is what is tested.
FETCH = """
import asyncio, os, sys
from consumer.settings import ConsumerSettings
from consumer.image_sources import open_sources
from consumer.images.byte_budget import ByteBudget
from schemas import ImageReference
from imagelane.exits import FatalError

async def main():
    async with open_sources(ConsumerSettings.from_env(os.environ)) as sources:
        await sources.ready()
        async with ByteBudget(2**20).reserve() as reservation:
            fetched = await sources.fetch(ImageReference(uri=sys.argv[1]), reservation)
            print(os.pread(fetched.descriptor, fetched.byte_length, 0).decode())
try:
    asyncio.run(main())
except FatalError as halt:
    print("halt:", halt)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store with two buckets, one of which keeps versions."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.client.create_bucket(Bucket="pics")
        server.client.create_bucket(Bucket="other")
        server.client.put_bucket_versioning(
            Bucket="pics", VersioningConfiguration={"Status": "Enabled"}
        )
        server.client.put_object(Bucket="pics", Key="cat.jpg", Body=b"cat")
        server.client.put_object(Bucket="other", Key="cat.jpg", Body=b"other cat")
        yield server


def _environment(store: S3Server, **changes: str) -> dict[str, str]:
    return {
        "SECRET_API_KEY": SECRET.decode(),
        **store.environment("pics", "other/open/"),
        **changes,
    }


def _open(store: S3Server, **changes: str) -> AbstractAsyncContextManager[S3Source]:
    return s3_source(ConsumerSettings.from_env(_environment(store, **changes)))


async def _fetch(store: S3Server, uri: str, **changes: str) -> bytes:
    async with _open(store, **changes) as source:
        return await fetched(source, uri, LIMIT)


async def _verdict(store: S3Server, uri: str, **changes: str) -> Failed:
    with pytest.raises(Failed) as caught:
        await _fetch(store, uri, **changes)
    return caught.value


@pytest.mark.parametrize(
    ("key", "uri"),
    [
        ("cat.jpg", "s3://pics/cat.jpg"),
        ("a b/é+%41.jpg", "s3://pics/a b/é+%2541.jpg"),
        ("a b/é+%41.jpg", "s3://pics/a%20b/%C3%A9%2B%2541.jpg"),
        ("q?x#y&z=1", "s3://pics/q%3Fx%23y&z=1"),
        ("narrow\u202fspace 猫.png", "s3://pics/narrow\u202fspace 猫.png"),
        ("~!*'()_-.$,;:@", "s3://pics/~!*'()_-.$,;:@"),
        ("%2e%2e/x", "s3://pics/%252e%252e/x"),
    ],
)
async def test_object_of_any_name_is_read(store: S3Server, key: str, uri: str) -> None:
    """The server computes the signature of the same path: none of these is encoded differently."""
    store.client.put_object(Bucket="pics", Key=key, Body=b"cat")
    assert await _fetch(store, uri) == b"cat"


async def test_empty_and_large_objects_are_read_whole(store: S3Server) -> None:
    """Sizes around the limit, to the byte; what is over it is not read."""
    for size in (0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 8 * LIMIT):
        store.client.put_object(Bucket="pics", Key=f"size/{size}", Body=os.urandom(size))
    for size in (0, 1, LIMIT - 1, LIMIT):
        assert len(await _fetch(store, f"s3://pics/size/{size}")) == size
    for size in (LIMIT + 1, 8 * LIMIT):
        verdict = await _verdict(store, f"s3://pics/size/{size}")
        assert verdict.code is Code.IMAGE_TOO_LARGE


async def test_version_is_honoured(store: S3Server) -> None:
    """Each version can be asked for, a deleted object is gone, and its versions are not."""
    put, name = store.client.put_object, {"Bucket": "pics", "Key": "versions/a.jpg"}
    first = put(**name, Body=b"first")["VersionId"]
    second = put(**name, Body=b"second")["VersionId"]
    uri = "s3://pics/versions/a.jpg"
    assert await _fetch(store, uri) == b"second"
    assert await _fetch(store, f"{uri}?versionId={first}") == b"first"
    deletion = store.client.delete_object(**name)["VersionId"]
    assert (await _verdict(store, uri)).code is Code.NOT_FOUND
    assert (await _verdict(store, f"{uri}?versionId={deletion}")).code is Code.NOT_FOUND
    assert await _fetch(store, f"{uri}?versionId={second}") == b"second"
    unknown = "01J0000000000000000000000A"
    assert (await _verdict(store, f"{uri}?versionId={unknown}")).code is Code.NOT_FOUND


async def test_missing_object_is_not_found(store: S3Server) -> None:
    """No such key, and no such bucket although it is allowed."""
    assert (await _verdict(store, "s3://pics/gone.jpg")).code is Code.NOT_FOUND
    verdict = await _verdict(store, "s3://nobucket/a.jpg", S3_BUCKETS="nobucket")
    assert verdict.code is Code.NOT_FOUND


async def test_object_outside_of_bucket_and_prefix_is_forbidden(store: S3Server) -> None:
    """It is there and our key could read it: the list alone keeps it closed."""
    store.client.put_object(Bucket="other", Key="open/cat.jpg", Body=b"open cat")
    assert await _fetch(store, "s3://other/open/cat.jpg") == b"open cat"
    for uri in (
        "s3://other/cat.jpg",
        "s3://other/open/../cat.jpg",
        "s3://other/open/%2e%2e/cat.jpg",
        "s3://other/open%2F..%2Fcat.jpg",
        "s3://pics/../other/cat.jpg",
    ):
        assert (await _verdict(store, uri)).code is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize(
    "changes",
    [
        {"S3_SECRET_ACCESS_KEY": "not-the-secret-key"},
        {"S3_ACCESS_KEY_ID": "nobody"},
        {"S3_REGION": "eu-west-1"},
    ],
    ids=["secret", "key", "region"],
)
async def test_wrong_credentials_are_our_fault_and_may_heal(
    store: S3Server, changes: dict[str, str]
) -> None:
    """The server refuses the signature: no verdict on the reference, and no secret in the words."""
    verdict = await _verdict(store, "s3://pics/cat.jpg", **changes)
    assert isinstance(verdict, Unavailable)
    assert "credentials" in verdict.message
    for secret in (ACCESS_KEY_ID, SECRET_ACCESS_KEY, *changes.values()):
        assert secret not in verdict.message


async def test_store_with_a_private_authority(tmp_path: Path) -> None:
    """HTTP_CA_FILE names it; without that the store proves nothing, and may be put right."""
    authority = trustme.CA()
    files = TlsFiles(
        certificate=tmp_path / "server.pem", key=tmp_path / "key.pem", authority=tmp_path / "ca.pem"
    )
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(files.authority))
    issued.private_key_pem.write_to_path(str(files.key))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(files.certificate), append=True)
    (tmp_path / "store").mkdir()
    with s3_server(tmp_path / "store", files) as store:
        store.client.create_bucket(Bucket="pics")
        store.client.put_object(Bucket="pics", Key="cat.jpg", Body=b"cat")
        given = {"HTTP_CA_FILE": str(files.authority)}
        assert await _fetch(store, "s3://pics/cat.jpg", **given) == b"cat"
        verdict = await _verdict(store, "s3://pics/cat.jpg")
    assert isinstance(verdict, Unavailable)
    assert "certificate" in verdict.message


async def test_many_objects_are_read_at_once(store: S3Server) -> None:
    """Five hundred at once over one session, each with its own bytes, within the budget."""
    names = [f"many/{n}.jpg" for n in range(500)]
    for name in names:
        store.client.put_object(Bucket="pics", Key=name, Body=name.encode() * 100)
    async with _open(store) as source:
        budget = ByteBudget(20_000)

        async def fetch(name: str) -> bytes:
            async with fetching(source, f"s3://pics/{name}", LIMIT, budget) as data:
                assert 0 < budget.held_bytes <= 20_000
                return data

        contents = await asyncio.gather(*map(fetch, names))
    assert contents == [name.encode() * 100 for name in names]


async def _in_a_process(settings: dict[str, str], environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FETCH, "s3://pics/cat.jpg"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode().strip()


@asynccontextmanager
async def _rogue() -> AsyncIterator[tuple[Script, dict[str, str]]]:
    """A server that somebody wrote into the environment, and the variables that name it."""
    async with scripted(answer("200 OK", b"evil")) as rogue:
        names = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"]
        names += ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        names += [name.lower() for name in names]
        yield rogue, {name: rogue.endpoint for name in names} | {"AWS_PROFILE": "rogue"}


async def test_environment_names_no_other_server(store: S3Server) -> None:
    """Endpoints, proxies and profiles of the environment are not ours."""
    async with _rogue() as (rogue, environment):
        assert await _in_a_process(_environment(store), environment) == "cat"
    assert rogue.requests == []


async def test_credentials_come_from_botocores_chain_where_none_are_set(store: S3Server) -> None:
    """Found in the environment as everywhere; the object still comes from our endpoint."""
    settings = _environment(store, S3_ACCESS_KEY_ID="", S3_SECRET_ACCESS_KEY="")
    found = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
    async with _rogue() as (rogue, environment):
        del environment["AWS_PROFILE"]  # that one is part of the chain
        assert await _in_a_process(settings, environment | found) == "cat"
    assert rogue.requests == []


async def test_no_credentials_stop_the_start(store: S3Server) -> None:
    """It says so in words, and at once."""
    settings = _environment(store, S3_ACCESS_KEY_ID="", S3_SECRET_ACCESS_KEY="")
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
    assert (await _in_a_process(settings, nothing)).startswith("halt: S3_BUCKETS: no credentials")
