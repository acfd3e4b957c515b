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


class Server:
    """A server with an empty database, and the URL of that."""

    def __init__(self, programs: Path, folder: str):
        port = _free_port()
        self.url = f"postgresql://tester@127.0.0.1:{port}/postgres"
        self._run = _as_server_user(folder)
        self._pg_ctl = (programs / "pg_ctl", "-D", f"{folder}/data", "-w")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        self._options = ("-o", settings, "-l", f"{folder}/log")
        initdb = programs / "initdb"
        self._run(initdb, "-D", f"{folder}/data", "-U", "tester", "-A", "trust", "-N")

    def start(self) -> None:
        self._run(*self._pg_ctl, *self._options, "start")

    def stop(self) -> None:
        self._run(*self._pg_ctl, "-m", "immediate", "stop")


@contextlib.contextmanager
def server(programs: Path):
    """Yields a `Server` that runs."""
    # Not a folder of pytest's, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        started = Server(programs, folder)
        started.start()
        try:
            yield started
        finally:
            started.stop()


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
