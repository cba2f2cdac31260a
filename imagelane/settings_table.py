"""Settings as a table for the README, and the settings in force with the secrets masked."""

from collections.abc import Iterable
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from imagelane.env import Environment
from imagelane.settings import FILE_SUFFIX, WireSettings

_ORIGIN_COLUMN: Final = 44  # most assignments are shorter


def settings_table(type_: type[WireSettings], without: Iterable[str] = ()) -> str:
    """Return the settings of a class as a Markdown table, in its order, without some fields."""
    left_out = frozenset(without)
    rows = ["| setting | default | |", "| --- | --- | --- |"]
    for name, field in type_.model_fields.items():
        if name not in left_out:
            rows.append(f"| `{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n".join(rows)


def settings_in_force(settings: WireSettings, environment: Environment) -> list[str]:
    """Return a line for each setting: name, value and origin, secrets masked, origins aligned."""
    lines = []
    for name in type(settings).model_fields:
        value, fingerprint = getattr(settings, name), ""
        if name == "secret_api_key" and value.get_secret_value():
            fingerprint = f" (fingerprint {settings.fingerprints[settings.secret_api_key_id]})"
        assignment = f"{name.upper()}={_shown(value)}{fingerprint}"
        lines.append(f"{assignment:<{_ORIGIN_COLUMN}}  from {_origin(name, environment)}")
    return lines


def _origin(name: str, environment: Environment) -> str:
    for variable in (name.upper(), name.upper() + FILE_SUFFIX):
        if path := environment.get(variable):
            is_file = variable.endswith(FILE_SUFFIX)
            return f"{environment.origin(variable)}{f', file {path}' * is_file}"
    return "default"


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value not in (None, "") else ""
