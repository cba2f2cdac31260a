"""The image sources that the settings allow; a scheme more is an entry more."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.sources import ImageSource, Sources
from consumer.images.sources.body import FetchLimits
from consumer.images.sources.data import DataSource
from consumer.images.sources.file import FileSource
from consumer.images.sources.http import HttpOptions, open_http
from consumer.images.sources.s3 import S3Options, open_s3
from consumer.settings import ConsumerSettings


@asynccontextmanager
async def open_sources(settings: ConsumerSettings) -> AsyncIterator[Sources]:
    """Open the allowed schemes.

    Raises:
        FatalError: one of them cannot be opened as the settings say.
    """
    by_scheme: dict[str, ImageSource] = {}
    limits = fetch_limits(settings)
    async with AsyncExitStack() as opened:
        clock = LoopClock()
        await opened.enter_async_context(every_tick(clock.tick))
        if settings.file_roots:
            by_scheme["file"] = FileSource.under(
                settings.file_roots, total_seconds=settings.fetch_total_seconds
            )
        if settings.data_max_bytes:
            by_scheme["data"] = DataSource(max_bytes=settings.data_max_bytes)
        if settings.allowed_hosts or settings.allow_public_hosts:
            http = await opened.enter_async_context(
                open_http(http_options(settings), limits, clock)
            )
            by_scheme |= {"http": http, "https": http}
        if settings.s3_buckets:
            s3 = await opened.enter_async_context(open_s3(s3_options(settings), limits))
            by_scheme["s3"] = s3
        yield Sources(by_scheme=by_scheme, max_bytes=settings.max_image_bytes, clock=clock)


def fetch_limits(settings: ConsumerSettings) -> FetchLimits:
    """Return how slow a host, a store or a file system may be."""
    return FetchLimits(
        connect_seconds=settings.fetch_connect_seconds,
        idle_seconds=settings.fetch_idle_seconds,
        total_seconds=settings.fetch_total_seconds,
        grace_seconds=settings.fetch_grace_seconds,
        min_bytes_per_second=settings.fetch_min_bytes_per_second,
    )


def http_options(settings: ConsumerSettings) -> HttpOptions:
    """Return which hosts are asked, and how."""
    return HttpOptions(
        allowed_hosts=settings.allowed_hosts,
        allow_public=settings.allow_public_hosts,
        networks=settings.allowed_networks,
        proxy=settings.egress_proxy,
        ca_file=settings.http_ca_file,
        user_agent=settings.http_user_agent,
        headers=settings.http_headers.get_secret_value(),
        per_host=settings.http_per_host,
        max_waiters=settings.records_in_flight // 4,
        max_age_seconds=settings.retry_max_age_seconds,
    )


def s3_options(settings: ConsumerSettings) -> S3Options:
    """Return which buckets are read, and as whom."""
    secret = settings.s3_secret_access_key
    return S3Options(
        buckets=settings.s3_buckets,
        endpoint=settings.s3_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        ca_file=settings.http_ca_file,
    )
