"""`python -m schemas` writes the JSON Schemas of request and result beside this file."""

from pathlib import Path

import orjson
from pydantic import BaseModel

from schemas.messages import Request, Result


def json_schemas() -> dict[str, bytes]:
    """Return the JSON Schema documents by file name, generated from the types."""
    documents: dict[str, type[BaseModel]] = {
        "request.schema.json": Request,
        "result.schema.json": Result,
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {
        name: orjson.dumps(dialect | type_.model_json_schema(), option=orjson.OPT_INDENT_2) + b"\n"
        for name, type_ in documents.items()
    }


if __name__ == "__main__":
    for name, document in json_schemas().items():
        Path(__file__).with_name(name).write_bytes(document)
