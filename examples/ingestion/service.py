"""An ingestion service with FastAPI: pictures come by HTTP, requests go out by Kafka.

    pip install imagelane fastapi uvicorn
    uvicorn examples.ingestion.service:app

The publisher lives as long as the application. `POST /images` returns as soon as all in-sync
replicas have the request; `POST /images?wait=30` waits for what becomes of it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import BaseModel

from producer import (
    FatalError,
    InvalidRequest,
    ProducerSettings,
    Publisher,
    ResultTimeout,
    TooLarge,
    image_request,
)


class Image(BaseModel):
    """A picture to embed and caption; `album` comes back in the result's metadata."""

    uri: str
    album: int | None = None


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Keep one publisher open while the application runs."""
    settings = ProducerSettings.from_env(os.environ)
    async with Publisher(settings, results=True) as publisher:
        application.state.publisher = publisher
        yield


app = FastAPI(title="ingestion", lifespan=lifespan)


@app.post("/images", status_code=202)
async def ingest(
    image: Image, request: Request, wait: Annotated[float, Query(ge=0, le=120)] = 0
) -> dict[str, Any]:
    """Publish a picture; with `wait` return what became of it within so many seconds."""
    publisher: Publisher = request.app.state.publisher
    metadata = None if image.album is None else {"album": image.album}
    try:
        published = await publisher.publish(image_request(image.uri, metadata=metadata))
        answer: dict[str, Any] = {"id": published.id, "status": "published"}
        if wait:
            outcome = await publisher.result(published, timeout_seconds=wait)
            caption = outcome.result.caption if outcome.result else None
            answer |= {
                "status": outcome.status,
                "caption": caption.text if caption else None,
                "code": outcome.code,
            }
    except (InvalidRequest, TooLarge) as error:
        raise HTTPException(422, str(error)) from error
    except ResultTimeout:
        pass  # it is published all the same; its result comes to whoever reads the results
    except FatalError as error:
        raise HTTPException(503, "the brokers do not answer; try again") from error
    return answer
