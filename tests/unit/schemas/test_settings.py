"""Settings: every fault at once, files for secrets, and no secret in any text."""

from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from consumer.settings import ConsumerSettings
from imagelane.env import Environment
from imagelane.exits import ExitCode, FatalError
from imagelane.settings import CommaSeparated, WireSettings
from imagelane.settings_table import settings_in_force
from producer.settings import ProducerSettings

SECRET = "correct horse battery staple 0123456789"
PREVIOUS = "purple monkey dishwasher 0123456789 ok"
GOOD = {"SECRET_API_KEY": SECRET}


def halt(environment: dict[str, str], type_: type[WireSettings] = WireSettings) -> str:
    """Return the lines that the program ends with, one for each fault."""
    with pytest.raises(FatalError) as caught:
        type_.from_env(environment)
    assert caught.value.code is ExitCode.SETTINGS
    return str(caught.value)


def test_one_secret_is_all_that_must_be_set() -> None:
    """Everything but the secret has a default."""
    settings = WireSettings.from_env(GOOD)

    assert settings.bootstrap_servers == ("localhost:9092",)
    assert (settings.ingest_topic, settings.results_topic, settings.dlq_topic) == (
        "image.ingest",
        "image.results",
        "image.ingest.dlq",
    )
    assert settings.keys.current_id == "k1"
    assert dict(settings.keys.secrets) == {"k1": SECRET.encode()}


@pytest.mark.parametrize("environment", [{}, {"SECRET_API_KEY": ""}, {"SECRET_API_KEY_FILE": ""}])
def test_missing_secret_ends_the_program(environment: dict[str, str]) -> None:
    """There is no default secret; the line says what is missing and how to make one."""
    line = halt(environment)

    assert line.startswith("settings: SECRET_API_KEY: missing")
    assert "openssl rand -hex 32" in line


@pytest.mark.parametrize(
    ("secret", "good"), [("x" * 31, False), ("x" * 32, True), ("é" * 16, True)]
)
def test_secret_has_at_least_32_bytes(secret: str, good: bool) -> None:
    """Bytes count, not characters."""
    if good:
        assert WireSettings.from_env({"SECRET_API_KEY": secret})
    else:
        assert halt({"SECRET_API_KEY": secret}).startswith("settings: SECRET_API_KEY: at least 32")


def test_every_bad_value_is_reported_at_once() -> None:
    """Nobody has to start the program seven times to find seven mistakes."""
    bad = {
        "BOOTSTRAP_SERVERS": "broker:port",
        "SECRET_API_KEY": "short",
        "SECRET_API_KEY_ID": "a.b",
        "SECRET_API_KEYS_PREVIOUS": "k0:short",
        "INGEST_TOPIC": "no spaces",
        "RESULTS_TOPIC": "x" * 250,
        "DLQ_TOPIC_FILE": "/no/such/file",
    }

    line = halt(bad)

    faults = line.removeprefix("settings: ").splitlines()
    assert sorted(fault.partition(":")[0] for fault in faults) == sorted(
        name.removesuffix("_FILE") for name in bad
    )
    assert "[A-Za-z" not in line


def test_clashes_are_reported_together() -> None:
    """What only shows between settings comes in one line too."""
    line = halt(GOOD | {"DLQ_TOPIC": "image.ingest", "SECRET_API_KEYS_PREVIOUS": f"k1:{PREVIOUS}"})

    assert "SECRET_API_KEYS_PREVIOUS names the key id" in line
    assert "must be four topics" in line


def test_fault_says_what_the_setting_is() -> None:
    """A pattern alone tells nobody what to write."""
    assert "Kafka brokers, host:port, by comma" in halt(GOOD | {"BOOTSTRAP_SERVERS": "a b"})


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        (" a:1 , b:2 ,", ("a:1", "b:2")),
        ("kafka", ("kafka",)),
        ("[::1]:9092,10.0.0.1:9092", ("[::1]:9092", "10.0.0.1:9092")),
    ],
)
def test_brokers_are_separated_by_commas(given: str, servers: tuple[str, ...]) -> None:
    """Space around them, and a comma at the end, do no harm."""
    assert WireSettings.from_env(GOOD | {"BOOTSTRAP_SERVERS": given}).bootstrap_servers == servers


@pytest.mark.parametrize("given", [",", " ", "a:b", "a b:1", "http://a:1", "a:1\n:2"])
def test_bad_brokers_end_the_program(given: str) -> None:
    """Before anything tries to reach them."""
    assert halt(GOOD | {"BOOTSTRAP_SERVERS": given}).startswith("settings: BOOTSTRAP_SERVERS: ")


@pytest.mark.parametrize("name", ["a\n", "\u0661", "a/b", "a b", "é"])
@pytest.mark.parametrize("setting", ["INGEST_TOPIC", "RESULTS_TOPIC", "DLQ_TOPIC"])
def test_bad_topic_name_ends_the_program(setting: str, name: str) -> None:
    """A newline at the end is no part of a name: a shell's mistake, or worse."""
    assert halt(GOOD | {setting: name}).startswith(f"settings: {setting}: ")


def test_empty_means_absent() -> None:
    """Compose hands on what is not set as an empty string."""
    names = [name.upper() for name in WireSettings.model_fields]
    empty = {name: "" for name in names} | {f"{name}_FILE": "" for name in names}

    assert WireSettings.from_env(empty | GOOD) == WireSettings.from_env(GOOD)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_any_setting_can_come_from_a_file(tmp_path: Path, ending: str) -> None:
    """The line end that an editor adds is not part of the value."""
    values = {"SECRET_API_KEY": SECRET, "INGEST_TOPIC": "pictures"}
    environment = {}
    for name, value in values.items():
        (tmp_path / name).write_bytes((value + ending).encode())
        environment[f"{name}_FILE"] = str(tmp_path / name)

    settings = WireSettings.from_env(environment)

    assert settings.secret_api_key.get_secret_value() == SECRET
    assert settings.ingest_topic == "pictures"


def test_value_wins_over_file(tmp_path: Path) -> None:
    """With both, the variable itself counts, and the file is not even read."""
    environment = GOOD | {"SECRET_API_KEY_FILE": str(tmp_path / "absent")}

    assert WireSettings.from_env(environment).secret_api_key.get_secret_value() == SECRET


def test_empty_file_is_absence(tmp_path: Path) -> None:
    """A secret that was never filled in is missing, and an empty list of keys is none."""
    empty = tmp_path / "empty"
    empty.write_text("\n")

    assert "SECRET_API_KEY: missing" in halt({"SECRET_API_KEY_FILE": str(empty)})
    assert WireSettings.from_env(GOOD | {"SECRET_API_KEY_ID_FILE": str(empty)}).keys


@pytest.mark.parametrize("kind", ["absent", "directory", "not UTF-8"])
def test_unreadable_file_is_a_fault_of_its_setting(tmp_path: Path, kind: str) -> None:
    """The line names the variable and the cause, once, and does not call the setting missing."""
    path = tmp_path / "secret"
    if kind == "directory":
        path.mkdir()
    if kind == "not UTF-8":
        path.write_bytes(b"\xff" * 40)

    line = halt({"SECRET_API_KEY_FILE": str(path)})

    assert "the file that SECRET_API_KEY_FILE names cannot be read: " in line
    assert "missing" not in line


def test_previous_keys_verify_and_do_not_sign() -> None:
    """They join the ring; the current one stays current."""
    keys = WireSettings.from_env(
        GOOD | {"SECRET_API_KEYS_PREVIOUS": f"k0:{PREVIOUS}, old-1:{PREVIOUS}:x,"}
    ).keys

    assert keys.current_id == "k1"
    assert dict(keys.secrets) == {
        "k0": PREVIOUS.encode(),
        "old-1": f"{PREVIOUS}:x".encode(),
        "k1": SECRET.encode(),
    }


@pytest.mark.parametrize(
    "pairs",
    [
        "k0",
        "k0:",
        "k0:short",
        PREVIOUS,
        f":{PREVIOUS}",
        f"a.b:{PREVIOUS}",
        f"a b:{PREVIOUS}",
        f"{'k' * 33}:{PREVIOUS}",
        f"k0:{PREVIOUS},k2",
        f"k0:{PREVIOUS};k2:{PREVIOUS},k0:{PREVIOUS}",
        f"k0:{PREVIOUS},k0:{PREVIOUS}x",
    ],
)
def test_bad_previous_keys_end_the_program(pairs: str) -> None:
    """Each is a key id that can be signed, once, and a long secret."""
    line = halt(GOOD | {"SECRET_API_KEYS_PREVIOUS": pairs})

    assert line.startswith("settings: SECRET_API_KEYS_PREVIOUS: ")
    assert "monkey" not in line


def test_no_secret_is_in_any_text_of_good_settings() -> None:
    """Settings that are logged or printed show no secret."""
    settings = WireSettings.from_env(GOOD | {"SECRET_API_KEYS_PREVIOUS": f"k0:{PREVIOUS}"})

    texts = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    texts += f"{settings.keys!r} {settings.keys}"

    assert "horse" not in texts
    assert "monkey" not in texts


@pytest.mark.parametrize(
    "environment",
    [
        {"SECRET_API_KEY": "horse"},
        {"SECRET_API_KEY": SECRET, "SECRET_API_KEYS_PREVIOUS": "k0:monkey"},
        {"SECRET_API_KEY": SECRET, "SECRET_API_KEYS_PREVIOUS": f"monkey horse:{PREVIOUS}"},
        {"SECRET_API_KEY": SECRET, "SECRET_API_KEYS_PREVIOUS": f"k1:{PREVIOUS}"},
        {"SECRET_API_KEY": SECRET, "SECRET_API_KEY_ID": "horse monkey"},
        {"SECRET_API_KEY": SECRET, "INGEST_TOPIC": "image.results"},
    ],
)
def test_no_secret_is_in_any_text_of_a_fault(environment: dict[str, str]) -> None:
    """Neither in the line nor in what hangs behind it: a traceback may be printed."""
    with pytest.raises(FatalError) as caught:
        WireSettings.from_env(environment)

    chain = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "horse" not in chain
    assert "monkey" not in chain


def test_no_secret_is_in_the_text_of_a_fault_when_made_by_hand() -> None:
    """pydantic quotes inputs unless told not to, the whole mapping for a missing field."""
    with pytest.raises(ValidationError) as caught:
        WireSettings.model_validate(
            {"secret_api_key": "horse", "secret_api_keys_previous": "monkey", "dlq_topic": "a b"}
        )

    assert "horse" not in str(caught.value)
    assert "monkey" not in str(caught.value)
    assert "input_value" not in str(caught.value)


class _Settings(WireSettings):
    roots: CommaSeparated = Field(default=(), description="folders, by comma")
    count: int = Field(default=1, ge=1, description="how many")


def test_subclass_reads_its_own_settings_too() -> None:
    """Each side adds its own, with the same rules."""
    settings = _Settings.from_env(GOOD | {"ROOTS": "/a, /b c", "COUNT": "3"})

    assert (settings.roots, settings.count) == (("/a", "/b c"), 3)
    assert "COUNT: Input should be greater than or equal to 1 (how many)" in halt(
        GOOD | {"COUNT": "0"}, _Settings
    )


@pytest.mark.parametrize("kind", ["variable", "file"])
@pytest.mark.parametrize(
    "secret",
    [f" {SECRET}", f"{SECRET} ", f"{SECRET}\t", f'"{SECRET}"', f"{SECRET}'", f"\ufeff{SECRET}"],
)
def test_what_an_editor_left_at_an_end_of_a_secret_is_refused(
    tmp_path: Path, secret: str, kind: str
) -> None:
    """In a file and in a variable alike: the other side would have another secret."""
    (tmp_path / "secret").write_text(secret, encoding="utf-8")
    given = {
        "variable": {"SECRET_API_KEY": secret},
        "file": {"SECRET_API_KEY_FILE": str(tmp_path / "secret")},
    }[kind]

    line = halt(given)

    assert line.startswith(("settings: SECRET_API_KEY: begins", "settings: SECRET_API_KEY: ends"))
    assert "horse" not in line


def test_a_line_end_behind_a_secret_is_none_of_it() -> None:
    """Variables are filled from files, too."""
    assert WireSettings.from_env({"SECRET_API_KEY": SECRET + "\n"}) == WireSettings.from_env(GOOD)


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant() -> None:
    """Its default would hold in silence."""
    environment = GOOD | {"INGEST_TOPC": "a", "SECRET_API_KEYS_PREVIOS_FILE": "b", "PATH": "/bin"}

    assert WireSettings.misspelt(environment) == [
        "INGEST_TOPC is no setting; is INGEST_TOPIC meant?",
        "SECRET_API_KEYS_PREVIOS_FILE is no setting; is SECRET_API_KEYS_PREVIOUS_FILE meant?",
    ]


def test_the_settings_of_one_side_are_no_misspelt_ones_of_the_other() -> None:
    """Both may read one `.env`."""
    sides = (ConsumerSettings, ProducerSettings)
    names = {name.upper(): "" for side in sides for name in side.model_fields}

    assert [side.misspelt(names) for side in sides] == [[], []]


def test_fingerprints_tell_secrets_apart_and_show_none() -> None:
    """Both sides print them, so that they can be compared by eye."""
    one, two = WireSettings.from_env(GOOD), WireSettings.from_env({"SECRET_API_KEY": PREVIOUS})

    assert one.fingerprints != two.fingerprints
    assert [len(print) for print in one.fingerprints.values()] == [8]


def test_settings_in_force_say_where_they_came_from(tmp_path: Path) -> None:
    """And show no secret."""
    (tmp_path / "topic").write_text("pictures")
    environment = Environment(
        ("--brokers", {"BOOTSTRAP_SERVERS": "a:1,b:2"}),
        ("environment", {"BOOTSTRAP_SERVERS": "c:3", "INGEST_TOPIC_FILE": str(tmp_path / "topic")}),
        (".env", GOOD),
    )
    settings = WireSettings.from_env(environment)

    lines = settings_in_force(settings, environment)

    fingerprint = settings.fingerprints["k1"]
    assert f"{'BOOTSTRAP_SERVERS=a:1,b:2':<44}  from --brokers" in lines
    assert f"SECRET_API_KEY=******** (fingerprint {fingerprint})  from .env" in lines
    assert f"{'INGEST_TOPIC=pictures':<44}  from environment, file {tmp_path / 'topic'}" in lines
    assert f"{'DLQ_TOPIC=image.ingest.dlq':<44}  from default" in lines
    assert "horse" not in "".join(lines)
