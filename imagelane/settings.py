"""The settings that both sides share. The environment is an argument."""

import hmac
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from imagelane.exits import ExitCode, FatalError
from imagelane.kafka.settings import KafkaSettings, split
from schemas.signing import KEY_ID_PATTERN, MIN_SECRET_BYTES, KeyRing

FILE_SUFFIX: Final = "_FILE"  # Docker and Kubernetes mount secrets as files
_NEAR: Final = 0.88  # one letter in ten differs or is missing
_MIN_SECRET: Final = f"at least {MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes one"


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(split)]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class WireSettings(KafkaSettings):
    """The topics and the secrets. Each side adds its own settings in a subclass."""

    secret_api_key: SecretStr = Field(
        description=f"shared secret that signs and verifies, {_MIN_SECRET}"
    )
    secret_api_key_id: str = Field(
        default="k1", pattern=f"^{KEY_ID_PATTERN}$", description="key id of SECRET_API_KEY"
    )
    secret_api_keys_previous: SecretStr = Field(
        default=SecretStr(""),
        description="`kid:secret` pairs by comma: still accepted, never used to sign",
    )
    ingest_topic: TopicName = Field(
        default="image.ingest", description="topic of the signed image requests"
    )
    queries_topic: TopicName = Field(
        default="image.queries",
        description="topic of the requests that somebody waits for: they go first on the device",
    )
    results_topic: TopicName = Field(
        default="image.results", description="topic of the signed results"
    )
    dlq_topic: TopicName = Field(
        default="image.ingest.dlq", description="topic of the dead letters"
    )

    @field_validator("secret_api_key")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        _check_ends(secret.get_secret_value())
        if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(_MIN_SECRET)
        return secret

    @field_validator("secret_api_keys_previous")
    @classmethod
    def _pairs(cls, pairs: SecretStr) -> SecretStr:
        _previous(pairs)
        return pairs

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        faults = []
        if self.secret_api_key_id in _previous(self.secret_api_keys_previous):
            faults.append("SECRET_API_KEYS_PREVIOUS names the key id of SECRET_API_KEY")
        if len(set(self.topics)) < 4:
            faults.append(
                "INGEST_TOPIC, QUERIES_TOPIC, RESULTS_TOPIC and DLQ_TOPIC must be four topics"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of all topics."""
        return (self.ingest_topic, self.queries_topic, self.results_topic, self.dlq_topic)

    @property
    def keys(self) -> KeyRing:
        """The secrets for a signer or verifier."""
        current = {self.secret_api_key_id: self.secret_api_key.get_secret_value().encode()}
        return KeyRing(
            current_id=self.secret_api_key_id,
            secrets=_previous(self.secret_api_keys_previous) | current,
        )

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Self:
        """Make settings from environment variables, `NAME` or (for any of them) `NAME_FILE`.

        Raises:
            FatalError: its message has every fault, and never a secret.
        """
        given: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for name in map(str.upper, cls.model_fields):
            try:
                value = _value(environment, name)
            except (OSError, UnicodeDecodeError) as exc:
                reason = getattr(exc, "strerror", None) or "not UTF-8"
                faults[name] = f"the file that {name}{FILE_SUFFIX} names cannot be read: {reason}"
            else:
                if value is not None:
                    given[name.lower()] = value
        try:
            settings = cls.model_validate(given)
        except ValidationError as exc:
            faults = cls._faults(exc) | faults
        if faults:
            lines = [f"{name}: {fault}" if name else fault for name, fault in faults.items()]
            lines += cls.misspelt(environment)
            raise FatalError(ExitCode.SETTINGS, "settings: " + "\n".join(lines))
        return settings

    @classmethod
    def misspelt(cls, environment: Mapping[str, str]) -> list[str]:
        """Return a line for each variable whose name is nearly a setting's."""
        known = {name.upper() for name in cls.model_fields}
        known |= {name + FILE_SUFFIX for name in known}
        near = {
            name: get_close_matches(name, known, n=1, cutoff=_NEAR)
            for name in environment
            if name not in known
        }
        return [f"{name} is no setting; is {to[0]} meant?" for name, to in near.items() if to]

    @property
    def fingerprints(self) -> dict[str, str]:
        """By key id: 8 hex digits, the same on two sides with the same secret."""
        return {
            key_id: hmac.digest(secret, b"imagelane fingerprint", "sha256").hex()[:8]
            for key_id, secret in self.keys.secrets.items()
        }

    @classmethod
    def _faults(cls, error: ValidationError) -> dict[str, str]:
        """Return the faults by setting name, without the inputs: one may be the secret."""
        faults: dict[str, str] = {}
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(detail["loc"][0]) if detail["loc"] else ""
            if detail["type"] == "value_error":
                fault = detail["msg"].removeprefix("Value error, ")
            else:
                # The description says what to write; a regular expression does not.
                what = {"missing": "missing", "string_pattern_mismatch": "has another form"}.get(
                    detail["type"], detail["msg"]
                )
                fault = f"{what} ({cls.model_fields[name].description})"
            faults.setdefault(name.upper(), fault)
        return faults


def _value(environment: Mapping[str, str], name: str) -> str | None:
    """Return the value of `name`; an empty one is none, for compose sets absent ones empty."""
    path = environment.get(name + FILE_SUFFIX)
    if not environment.get(name) and path:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n") or None
    value = environment.get(name) or ""
    return (value.rstrip("\r\n") if "SECRET" in name else value) or None


def _check_ends(secret: str) -> None:
    """Refuse white space, a byte order mark or a quote at an end: the other side may lack it."""
    for end, where in ((secret[:1], "begins"), (secret[-1:], "ends")):
        if end.isspace() or end == "\ufeff" or (end and end in "\"'"):
            what = "a quote" if end in "\"'" else "white space or a byte order mark"
            raise ValueError(f"{where} with {what}, which is no part of a secret; remove it")


def _previous(pairs: SecretStr) -> dict[str, bytes]:
    secrets: dict[str, bytes] = {}
    for pair in filter(None, pairs.get_secret_value().split(",")):
        key_id, _, secret = pair.strip().partition(":")
        if not re.fullmatch(KEY_ID_PATTERN, key_id) or len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"each must be kid:secret, the secret {_MIN_SECRET}")
        _check_ends(secret)
        if key_id in secrets:
            raise ValueError("a key id comes twice")
        secrets[key_id] = secret.encode()
    return secrets
