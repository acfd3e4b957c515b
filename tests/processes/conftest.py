import pytest

from tests.processes import postgresql


@pytest.fixture
def server():
    """A PostgreSQL server of the test's own, where PostgreSQL is installed."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed")
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with postgresql.server(programs) as server:
        yield server
