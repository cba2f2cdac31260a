"""The settings of what reads or writes the database."""

from pydantic import Field, SecretStr

from producer.settings import ProducerSettings


class DatabaseSettings(ProducerSettings):
    """Where the database is; what the address leaves out libpq takes from PGHOST, PGUSER, ..."""

    database_url: SecretStr = Field(
        description="PostgreSQL with pgvector, as postgresql://user@host/database"
    )
