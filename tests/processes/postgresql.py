"""A PostgreSQL server for a test, from the programs of the system's packages."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.subprocesses import finish
from tests.subprocesses import free_port
from tests.subprocesses import run_well
from tests.subprocesses import started
from tests.subprocesses import wait_for

SERVER_USERS = ("postgres", "nobody")
PROGRAMS = ("initdb", "pg_isready", "postgres")


def find_programs() -> Path | None:
    """Returns the folder with the programs, `None` without PostgreSQL."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    complete = (f for f in folders if all((f / p).exists() for p in PROGRAMS))
    return next(complete, None)


class Server:
    """A server with an empty database, and the URL of that."""

    def __init__(self, programs: Path, folder: str):
        port = free_port()
        data = f"{folder}/data"
        self.url = f"postgresql://tester@127.0.0.1:{port}/postgres"
        # What Optuna's engines have to be given.
        self.driver_url = self.url.replace("postgresql://", "postgresql+psycopg://")
        self._folder = Path(folder)
        self._user = _as_server_user(folder)
        self._command = [programs / "postgres", "-D", data, "-p", port, "-k", folder]
        self._command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self._is_ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        initdb = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-N"]
        run_well([*self._user, *initdb], cwd=folder)
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        log = self._running.enter_context((self._folder / "log").open("a"))
        command = [*self._user, *self._command]
        options = {"cwd": self._folder, "stdout": log, "stderr": subprocess.STDOUT}
        self._process = self._running.enter_context(started(command, **options))
        self._running.callback(self._quit)
        wait_for(self._answers, "the server")

    def _answers(self):
        assert self._process.poll() is None, (self._folder / "log").read_text()
        command = [*map(str, self._is_ready)]
        return subprocess.run(command, timeout=60, check=False).returncode == 0

    def _quit(self):
        """Closes all connections immediately, and releases shared memory."""
        self._process.send_signal(signal.SIGQUIT)
        finish(self._process)

    def stop(self) -> None:
        """Ends the process if it runs."""
        self._running.close()


@contextlib.contextmanager
def server(programs: Path):
    """Yields a `Server` that runs."""
    # Not a folder of pytest's, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = Server(programs, folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _as_server_user(folder):
    """Returns a command that starts a program as another user than root."""
    if os.geteuid() != 0:
        return []
    user = next(user for user in SERVER_USERS if _exists(user))
    shutil.chown(folder, user)
    return ["setpriv", f"--reuid={user}", "--clear-groups"]


def _exists(user):
    command = ["id", user]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
