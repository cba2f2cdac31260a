"""The settings of the gallery."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from imagelane.settings import CommaSeparated
from producer.gallery.guard import is_loopback
from producer.settings import ProducerSettings

MIN_TOKEN_CHARS = 16


class GallerySettings(ProducerSettings):
    """Where the gallery listens, and what it may read."""

    gallery_host: str = Field(
        default="127.0.0.1", description="address the gallery listens on; others need a token"
    )
    gallery_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8080, description="port of the gallery; 0: a free one"
    )
    gallery_names: CommaSeparated = Field(
        default=(), description="further names by which browsers reach the gallery, by comma"
    )
    gallery_token: SecretStr | None = Field(
        default=None,
        description=f"token that a page must have, at least {MIN_TOKEN_CHARS} characters",
    )
    gallery_open: bool = Field(
        default=False, description="no token, although GALLERY_HOST is not loopback"
    )
    file_roots: CommaSeparated = Field(
        default=(), description="folders whose pictures the gallery may show, by comma"
    )
    group_id: str = Field(
        default="imagelane", min_length=1, description="group of the consumers, for what waits"
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        token = self.gallery_token.get_secret_value() if self.gallery_token else ""
        if token and len(token) < MIN_TOKEN_CHARS:
            raise ValueError(f"GALLERY_TOKEN: at least {MIN_TOKEN_CHARS} characters")
        if not token and not self.gallery_open and not is_loopback(self.gallery_host):
            raise ValueError(
                f"GALLERY_HOST={self.gallery_host} is reached from other machines, and the gallery "
                "signs what is searched: set GALLERY_TOKEN; `openssl rand -hex 16` makes one"
            )
        return self
