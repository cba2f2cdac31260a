"""The settings of the database."""

from pydantic import Field, SecretStr

from producer.settings import ProducerSettings


class DatabaseSettings(ProducerSettings):
    """The database's address; libpq takes missing parts from PGHOST, PGUSER, ..."""

    database_url: SecretStr = Field(
        description="PostgreSQL with pgvector, as postgresql://user@host/database"
    )
