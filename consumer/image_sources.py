"""Makes the image sources that the settings allow, one for each scheme."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from consumer.images.decoding.pool import usable_cores
from consumer.images.fetching.pool import Fetchers
from consumer.images.loop_clock import LoopClock, every_tick
from consumer.images.sources import SealedSource, Sources
from consumer.images.sources.host_limiter import HostLimiter
from consumer.images.sources.http import HttpSource
from consumer.images.sources.options import FetchLimits, FetchOptions, HttpOptions, S3Options
from consumer.settings import ConsumerSettings
from imagelane.settings import FILE_SUFFIX


@asynccontextmanager
async def open_sources(settings: ConsumerSettings) -> AsyncIterator[Sources]:
    """Open the allowed schemes; `Sources.ready` waits for the processes that fetch.

    Raises:
        FatalError: the settings of a scheme are wrong.
    """
    options = fetch_options(settings)
    clock = LoopClock()
    fetchers = Fetchers(
        options,
        count=settings.fetch_processes or _default_processes(),
        environment=_environment(settings),
        paused=clock.note_pause,
        window_bytes=settings.unreserved_bytes,
    )
    by_scheme: dict[str, SealedSource] = {}
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(every_tick(clock.tick))
        if options.http:
            limiter = host_limiter(settings, clock)
            await opened.enter_async_context(every_tick(limiter.sweep))
            http = HttpSource(
                rules=options.http.rules(),
                limiter=limiter,
                ask=fetchers.ask,
                total_seconds=options.limits.total_seconds,
            )
            by_scheme |= {"http": http, "https": http}
        await opened.enter_async_context(fetchers)
        if options.file_roots:
            by_scheme["file"] = fetchers
        if options.data_max_bytes:
            by_scheme["data"] = fetchers
        if options.s3:
            by_scheme["s3"] = fetchers
        yield Sources(
            by_scheme=by_scheme,
            max_bytes=settings.max_image_bytes,
            clock=clock,
            ready=fetchers.ready,
        )


def _environment(settings: ConsumerSettings) -> dict[str, str]:
    """Return the environment of fetching processes, without our settings and secrets.

    The rest stays: botocore reads credentials from it, and TLS its authorities.
    """
    ours = {name.upper() for name in type(settings).model_fields}
    ours |= {name + FILE_SUFFIX for name in ours}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _default_processes() -> int:
    """Return one process for each eight cores, enough for the decoders on them."""
    return -(-usable_cores() // 8)


def fetch_options(settings: ConsumerSettings) -> FetchOptions:
    """Return the options of the fetching processes."""
    has_http = settings.allowed_hosts or settings.allow_public_hosts
    return FetchOptions(
        file_roots=settings.file_roots,
        data_max_bytes=settings.data_max_bytes,
        http=http_options(settings) if has_http else None,
        s3=s3_options(settings) if settings.s3_buckets else None,
        limits=fetch_limits(settings),
        decode=settings.decode_limits,
    )


def host_limiter(settings: ConsumerSettings, clock: LoopClock) -> HostLimiter:
    """Return the limiter of fetches from each host."""
    return HostLimiter(
        at_once=settings.http_per_host,
        max_waiters=settings.records_in_flight // 4,
        max_age_seconds=settings.retry_max_age_seconds,
        clock=clock,
    )


def fetch_limits(settings: ConsumerSettings) -> FetchLimits:
    """Return the timeouts and the least speed of a fetch."""
    return FetchLimits(
        connect_seconds=settings.fetch_connect_seconds,
        idle_seconds=settings.fetch_idle_seconds,
        total_seconds=settings.fetch_total_seconds,
        grace_seconds=settings.fetch_grace_seconds,
        min_bytes_per_second=settings.fetch_min_bytes_per_second,
    )


def http_options(settings: ConsumerSettings) -> HttpOptions:
    """Return the options of `http:` and `https:`."""
    return HttpOptions(
        allowed_hosts=settings.allowed_hosts,
        allow_public=settings.allow_public_hosts,
        networks=settings.allowed_networks,
        proxy=settings.egress_proxy,
        ca_file=settings.http_ca_file,
        user_agent=settings.http_user_agent,
        headers=settings.http_headers.get_secret_value(),
    )


def s3_options(settings: ConsumerSettings) -> S3Options:
    """Return the options of `s3:`."""
    secret = settings.s3_secret_access_key
    return S3Options(
        buckets=settings.s3_buckets,
        endpoint=settings.s3_url,
        region=settings.s3_region,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        ca_file=settings.http_ca_file,
    )
