"""`schemas` decides and does no IO: what importing it brings in."""

import json
import subprocess
import sys
from pathlib import Path

import schemas

ROOT = Path(schemas.__file__).parents[1]
PUBLIC = "import schemas"
ALL = "import schemas, schemas.headers"


def imported_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after `statement`."""
    program = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    return set(json.loads(output))


def test_importing_brings_in_no_event_loop_and_no_client() -> None:
    """Neither by ourselves nor through pydantic, whose models are all that we need."""
    modules = imported_by(ALL)

    assert not modules & {
        "PIL", "aiokafka", "asyncio", "dotenv", "http.client", "numpy", "requests", "ssl", "torch",
    }  # fmt: skip


def test_only_pydantic_brings_in_the_socket_module() -> None:
    """To find its plugins pydantic reads package metadata: mail headers, and with them `socket`."""
    by_any_model = imported_by("import json, pydantic; pydantic.create_model('Model', n=(int, 1))")

    ours = imported_by(ALL) - by_any_model

    assert not ours & {"socket", "selectors", "urllib.request", "subprocess", "multiprocessing"}


def test_only_the_public_names_are_promised() -> None:
    """`__all__` is sorted, complete, and each name is there."""
    assert schemas.__all__ == sorted(schemas.__all__)
    assert all(hasattr(schemas, name) for name in schemas.__all__)


def test_settings_are_not_part_of_the_contract() -> None:
    """Who only speaks the wire reads no environment."""
    assert "imagelane.settings" not in imported_by(PUBLIC)
