"""TinyShakespeare is the right file or an error, wherever it comes from."""

import contextlib
import hashlib
import math
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from normlab.data import IGNORED, build_source, shakespeare
from normlab.errors import NormlabError

FOLDER = Path(os.environ.get("NORMLAB_DATA", "/nowhere"))
REAL = FOLDER / shakespeare.NAME
needs_the_file = pytest.mark.skipif(
    not REAL.is_file(), reason="NORMLAB_DATA names no folder with tinyshakespeare.txt"
)
STAND_IN = ("To be, or not to be.\n" * 400).encode()


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No test reaches the real address, a proxy, or the user's own copy by accident."""
    monkeypatch.delenv("NORMLAB_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(shakespeare, "URL", "http://127.0.0.1:9/unreachable")
    monkeypatch.setattr(shakespeare, "PAUSES", (0.01, 0.01))


@pytest.fixture
def stand_in(monkeypatch):
    """A short text that passes for the real one, so that the tests need no download."""
    monkeypatch.setattr(shakespeare, "SHA256", hashlib.sha256(STAND_IN).hexdigest())
    monkeypatch.setattr(shakespeare, "BYTES", len(STAND_IN))


@pytest.fixture
def serve(monkeypatch):
    """serve([(status, body, declared length), …]) answers one request each, then the last again."""
    servers = []

    def start(answers):
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body, length = answers[min(len(requests), len(answers) - 1)]
                requests.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(shakespeare, "URL", f"http://127.0.0.1:{server.server_port}/input.txt")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


GOOD = (200, STAND_IN, len(STAND_IN))


@needs_the_file
def test_tinyshakespeare_has_nanogpt_s_numbers():
    source = build_source({"kind": "shakespeare", "path": str(FOLDER)}, 64)
    assert source.vocabulary == 65
    assert math.log(source.vocabulary) == pytest.approx(4.174, abs=5e-4)
    assert source.floor is None
    assert len(source._train) == 1_003_854
    scored = sum(int((batch.targets != IGNORED).sum()) for batch in source.validation())
    assert scored == 111_540 - 1
    assert len(source.validation()[0].tokens) == 128
    text = REAL.read_text()
    first = source.validation()[0].tokens[0].tolist()
    assert source.tokenizer.decode(first) == text[1_003_854 : 1_003_854 + 64]
    batch = source.batch(0, 0)
    assert batch.tokens.shape == (12, 64)
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        place = text.find(source.tokenizer.decode(tokens))
        assert 0 <= place <= 1_003_854 - 65
        assert source.tokenizer.decode(targets) in text


@needs_the_file
@pytest.mark.parametrize("way", ["file", "folder", "environment", "cache"])
def test_the_file_is_found_where_it_is(way, cache, monkeypatch, tmp_path):
    options = {"kind": "shakespeare"}
    if way == "file":
        options["path"] = str(REAL)
    elif way == "folder":
        (tmp_path / "input.txt").write_bytes(REAL.read_bytes())
        options["path"] = str(tmp_path)
    elif way == "environment":
        monkeypatch.setenv("NORMLAB_DATA", str(FOLDER))
    else:
        cache.mkdir(parents=True)
        (cache / shakespeare.NAME).write_bytes(REAL.read_bytes())
    assert build_source(options, 64).vocabulary == 65


def test_another_text_is_refused_with_a_way_on(tmp_path):
    other = tmp_path / "input.txt"
    other.write_text("Call me Ishmael.")
    with pytest.raises(NormlabError) as refused:
        build_source({"kind": "shakespeare", "path": str(tmp_path)}, 8)
    found = hashlib.sha256(b"Call me Ishmael.").hexdigest()[:12]
    assert f"SHA-256 {found}… where 86c4e6aa9db7… is expected" in str(refused.value)
    assert f"use data=text data.path={other}" in str(refused.value)


def test_a_path_that_holds_nothing_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(NormlabError, match="is neither TinyShakespeare nor a folder with"):
            build_source({"kind": "shakespeare", "path": str(path)}, 8)


def test_a_wrong_file_in_the_environment_or_the_cache_is_refused(cache, monkeypatch, tmp_path):
    cache.mkdir(parents=True)
    (cache / shakespeare.NAME).write_text("half a fi")
    with pytest.raises(NormlabError, match="delete it and run again"):
        build_source({"kind": "shakespeare"}, 8)
    (tmp_path / shakespeare.NAME).write_text("other")
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    with pytest.raises(NormlabError, match="unset NORMLAB_DATA="):
        build_source({"kind": "shakespeare"}, 8)


def test_it_is_downloaded_once_and_kept(cache, serve, stand_in):
    requests = serve([GOOD])
    first = build_source({"kind": "shakespeare"}, 16)
    again = build_source({"kind": "shakespeare"}, 16)
    assert requests == ["/input.txt"]
    assert [file.name for file in cache.iterdir()] == [shakespeare.NAME]
    assert (cache / shakespeare.NAME).read_bytes() == STAND_IN
    np.testing.assert_array_equal(first.batch(0, 0).tokens, again.batch(0, 0).tokens)


@pytest.mark.parametrize(
    "bad",
    [
        (500, b"oops", 4),
        (200, STAND_IN[:1000], len(STAND_IN)),
        (200, STAND_IN[:1000], 1000),
        (200, STAND_IN.replace(b"not", b"nor"), len(STAND_IN)),
        (200, STAND_IN + b"more", len(STAND_IN) + 4),
        (200, b"", 0),
    ],
    ids=["server error", "cut off", "short", "changed", "long", "empty"],
)
def test_a_failed_download_is_tried_again_and_leaves_nothing(bad, cache, serve, stand_in):
    requests = serve([bad, bad, bad, GOOD])
    with pytest.raises(NormlabError) as refused:
        build_source({"kind": "shakespeare"}, 16)
    message = str(refused.value)
    assert len(requests) == 3
    assert not cache.exists() or not list(cache.iterdir())
    assert "failed 3 times" in message
    assert "HTTP Error 500" in message or f"where {shakespeare.SHA256[:12]}…" in message
    for way_out in ("data.path=", "NORMLAB_DATA", "data=synthetic"):
        assert way_out in message
    assert build_source({"kind": "shakespeare"}, 16).vocabulary == len(set(STAND_IN))


def test_one_failure_is_forgiven(serve, stand_in):
    requests = serve([(500, b"", 0), (200, STAND_IN[:9], 9), GOOD])
    build_source({"kind": "shakespeare"}, 16)
    assert len(requests) == 3


def test_without_a_network_the_sentence_says_what_was_tried(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    with pytest.raises(NormlabError) as refused:
        build_source({"kind": "shakespeare"}, 16)
    message = str(refused.value)
    assert f"NORMLAB_DATA={tmp_path} holds no tinyshakespeare.txt" in message
    assert str(cache / shakespeare.NAME) in message
    assert "127.0.0.1:9/unreachable" in message
    assert "refused" in message
    assert "\n" not in message


def test_a_server_that_says_nothing_is_not_waited_for(cache, monkeypatch):
    monkeypatch.setattr(shakespeare, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(shakespeare, "URL", f"http://127.0.0.1:{port}/")
        start = time.monotonic()
        with pytest.raises(NormlabError, match="timed out"):
            build_source({"kind": "shakespeare"}, 16)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 2"], ids=["body", "headers"]
)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(sent, cache, monkeypatch):
    stopped = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(sent)
            while not stopped.wait(0.02):
                with contextlib.suppress(OSError):
                    connection.send(b"x")

    monkeypatch.setattr(shakespeare, "DEADLINE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,))
        dripping.start()
        monkeypatch.setattr(shakespeare, "URL", f"http://127.0.0.1:{server.getsockname()[1]}/")
        start = time.monotonic()
        try:
            with pytest.raises(NormlabError, match=r"0\.3 s"):
                build_source({"kind": "shakespeare"}, 16)
            assert time.monotonic() - start < 5
        finally:
            stopped.set()
            dripping.join()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_said(cache, serve, stand_in):
    serve([GOOD])
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(NormlabError, match=r"cache folder .* cannot be written"):
        build_source({"kind": "shakespeare"}, 16)
