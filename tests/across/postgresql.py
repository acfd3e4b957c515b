"""A PostgreSQL server for a test, from the programs of the system's packages."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

SERVER_USERS = ("postgres", "nobody")


def find_programs() -> Path | None:
    """Returns the folder with `initdb` and `pg_ctl`, `None` without PostgreSQL."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    complete = (
        f for f in folders if all((f / p).exists() for p in ("initdb", "pg_ctl"))
    )
    return next(complete, None)


@contextlib.contextmanager
def server(programs: Path):
    """Runs a server with an empty database, and yields its URL."""
    # Not a folder of pytest's, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        run = _as_server_user(folder)
        data, port = f"{folder}/data", _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        run(programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-N")
        run(
            *(programs / "pg_ctl", "-D", data, "-w", "-o", options),
            *("-l", f"{folder}/log", "start"),
        )
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _as_server_user(folder):
    """Returns a function that runs a program, not as root, which servers refuse."""
    prefix = []
    if os.geteuid() == 0:
        user = next(user for user in SERVER_USERS if _exists(user))
        shutil.chown(folder, user)
        prefix = ["setpriv", f"--reuid={user}", "--clear-groups"]

    def run(*command):
        subprocess.run(
            [*prefix, *map(str, command)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    return run


def _exists(user):
    return (
        subprocess.run(["id", user], capture_output=True, check=False).returncode == 0
    )


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
