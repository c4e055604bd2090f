"""A secret is shown by nothing: no log, repr, error, traceback or pickle, whatever happens."""

from __future__ import annotations

import logging
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import natslease
from faces import Face
from natslease.testing import Server
from operators import Key, Operator
from ports import INFO, silent_port

# Nothing but the secret is like it.
CANARY = "Kanarienvogel-7f3a"
PACKAGE = str(Path(natslease.__file__).parent)


class Secret(NamedTuple):
    """An option that has a secret."""

    options: dict[str, Any]
    config: str  # of a server that accepts it
    secrets: tuple[str, ...]
    url: str = "nats://{}"  # by the address


def _secrets(folder: Path) -> dict[str, Secret]:
    key, operator = Key("user"), Operator()
    file = folder / "user.creds"
    file.write_text(operator.credentials)
    user = f"authorization {{ user: u, password: {CANARY} }}"
    token = f'authorization {{ token: "{CANARY}" }}'
    nkey = f"authorization {{ users: [{{ nkey: {key.public} }}] }}"
    theirs = (operator.token, operator.token.split(".")[1], operator.seed)
    return {
        "password": Secret({"user": "u", "password": CANARY}, user, (CANARY,)),
        "password, called": Secret({"user": "u", "password": lambda: CANARY}, user, (CANARY,)),
        "password in the URL": Secret({}, user, (CANARY,), f"nats://u:{CANARY}@{{}}"),
        "token": Secret({"token": CANARY}, token, (CANARY,)),
        "token in the URL": Secret({}, token, (CANARY,), f"nats://{CANARY}@{{}}"),
        "nkey_seed": Secret({"nkey_seed": key.seed}, nkey, (key.seed,)),
        "credentials": Secret({"credentials": operator.credentials}, operator.config, theirs),
        "credentials_file": Secret({"credentials_file": file}, operator.config, theirs),
    }


@pytest.fixture(
    params=[
        "password",
        "password, called",
        "password in the URL",
        "token",
        "token in the URL",
        "nkey_seed",
        "credentials",
        "credentials_file",
    ]
)
def secret(request: pytest.FixtureRequest, tmp_path: Path) -> Secret:
    return _secrets(tmp_path)[request.param]


class Watch(logging.Handler):
    """Keeps all that is shown, to look for secrets in it."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__(logging.DEBUG)
        self.shown: list[str] = []
        self._secrets = secrets

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.append(f"{record.getMessage()} {vars(record)}")

    def see(self, thing: Any) -> None:
        self.shown += [repr(thing), str(thing), f"{thing}"]

    def see_pickled(self, thing: Any) -> None:
        with suppress(Exception):  # what is not pickled shows nothing
            self.shown.append(pickle.dumps(thing).decode("latin-1"))

    def see_error(self, error: BaseException) -> None:
        """An error with all that it came from, its traceback, and the locals of natslease in it."""
        chain: BaseException | None = error
        while chain is not None:
            self.see(chain)
            self.see(vars(chain))
            chain = chain.__cause__ or chain.__context__
        self.see_pickled(error)
        if isinstance(error, natslease.Error):
            self.shown.append(error.explain())
        self.shown.append("".join(traceback.format_exception(error)))
        summary = traceback.StackSummary.extract(
            traceback.walk_tb(error.__traceback__), capture_locals=True
        )
        self.shown += [
            f"{frame.name} {frame.locals}"
            for frame in summary
            if frame.filename.startswith(PACKAGE)
        ]

    def assert_nothing(self) -> None:
        for text in self.shown:
            for secret in self._secrets:
                assert secret not in text, text


@pytest.fixture
def watch(secret: Secret, capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Looks at everything that is logged and written meanwhile."""
    watch = Watch(secret.secrets)
    logger = logging.getLogger("natslease")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(watch)
    try:
        yield watch
    finally:
        logger.removeHandler(watch)
        logger.setLevel(level)
    watch.shown += capfd.readouterr()
    assert watch.shown
    watch.assert_nothing()


def look_at(client: Any, watch: Watch) -> None:
    """Everything that has to do with a client."""
    queue = client.queue("tasks")
    for thing in (client, queue, client.stats()):
        watch.see(thing)
    for thing in (getattr(client, "value", client), getattr(queue, "value", queue)):
        watch.see_pickled(thing)


def fail(client: Any, watch: Watch) -> None:
    """All kinds of calls fail, and are looked at."""
    queue = client.queue("tasks")
    calls: list[Callable[[], Any]] = [
        lambda: client.ping(timeout=1.5),
        lambda: queue.ensure(timeout=1.5),
        lambda: queue.reserve(1, timeout=1.5),
        lambda: queue.publish([b"x"], timeout=1.5).failed[0].error,
        lambda: queue.ack(["$JS.ACK.tasks.tasks.1.1.1.1.0"], timeout=1.5)[0].error,
    ]
    for call in calls:
        try:
            error = call()
        except natslease.Error as raised:
            error = raised
        assert isinstance(error, natslease.Error)
        watch.see_error(error)
    look_at(client, watch)


@pytest.fixture
def client(face: Face, secret: Secret) -> Callable[..., Any]:
    def make(address: str, **options: Any) -> Any:
        url = secret.url.format(address)
        return face.client(url, **{"connect_timeout": 0.5, **secret.options, **options})

    return make


def test_promise_12_canary_accepted(
    client: Callable[..., Any], secret: Secret, watch: Watch
) -> None:
    with Server(config=secret.config) as server:
        mine = client(f"{server.host}:{server.port}", connect_timeout=5.0)
        queue = mine.queue("tasks")
        watch.see(queue.ensure())
        watch.see(queue.publish([b"x"]))
        (lease,) = queue.reserve(1, wait=5)
        watch.see(lease)
        watch.see(lease.ack())
        watch.see(server.log)
        look_at(mine, watch)
        server.kill()
        fail(mine, watch)
        mine.close()
        look_at_closed(mine, watch)


def look_at_closed(client: Any, watch: Watch) -> None:
    watch.see(client)
    with pytest.raises(natslease.ClientClosed) as raised:
        client.ping()
    watch.see_error(raised.value)


def test_promise_12_canary_refused(client: Callable[..., Any], watch: Watch) -> None:
    with Server(config="authorization { user: somebody, password: else }") as server:
        fail(client(f"{server.host}:{server.port}"), watch)


def test_promise_12_canary_nobody_there(client: Callable[..., Any], watch: Watch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        fail(client(f"127.0.0.1:{reserved.getsockname()[1]}"), watch)


def test_promise_12_canary_unknown_host(client: Callable[..., Any], watch: Watch) -> None:
    fail(client("no-such-host.invalid:4222"), watch)


def test_promise_12_canary_never_answered(client: Callable[..., Any], watch: Watch) -> None:
    with silent_port(sends=INFO) as url:
        fail(client(url.removeprefix("nats://")), watch)


@contextmanager
def echo(form: str, secrets: tuple[str, ...]) -> Iterator[str]:
    """A server that answers CONNECT with an error that quotes what it was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.sendall(INFO.replace(b"{", b'{"nonce":"AAAAAAAAAAA",', 1))
                    said = connection.recv(1 << 16).decode().splitlines()[0]
                    text = said if form == "CONNECT" else " ".join(secrets)
                    connection.sendall(f"-ERR 'no good: {text}'\r\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("form", ["CONNECT", "the secret alone"])
def test_promise_12_canary_quoted_by_the_server(
    client: Callable[..., Any], secret: Secret, watch: Watch, form: str
) -> None:
    with echo(form, secret.secrets) as address:
        fail(client(address), watch)


@pytest.mark.parametrize(
    "options",
    [
        {"servers": f"nats://u:{CANARY}@host:port"},
        {"servers": f"http://u:{CANARY}@host"},
        {"servers": f"nats://u:{CANARY}@host:1/path?{CANARY}"},
        {"servers": "nats://localhost", "user": "u", "password": CANARY, "token": CANARY},
        {"servers": "nats://localhost", "nkey_seed": CANARY},
        {"servers": "nats://localhost", "credentials": CANARY},
        {"servers": "nats://localhost", "user": "u", "password": CANARY, "timeout": -1},
        {"servers": "nats://localhost", "password": CANARY.encode()},
        {"servers": "nats://localhost", "token": [CANARY]},
    ],
    ids=str,
)
def test_promise_12_canary_in_options_that_are_wrong(
    options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in (natslease.Client, natslease.AsyncClient):
        with pytest.raises((natslease.ConfigError, TypeError)) as raised:
            kind(**options)
        texts = [str(raised.value), repr(raised.value)]
        texts += traceback.format_exception(raised.value, limit=-1)
        if isinstance(raised.value, natslease.Error):
            texts += [raised.value.explain(), pickle.dumps(raised.value).decode("latin-1")]
        assert not any(CANARY in text for text in texts)
    assert CANARY not in "".join(capfd.readouterr())
