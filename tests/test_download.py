"""Downloads, from a server on this machine that can break off, refuse, and send other bytes."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from minigan.data import DataError
from minigan.data.download import download

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT; its server says how."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked[len("bytes=") : -1]) if asked and server.resumes else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(server.content)}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # where there is a proxy, not through it
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.status, server.asked = CONTENT, 200, []
        server.breaks_after, server.resumes, server.says_length = None, True, True
        server.url = f"http://127.0.0.1:{server.server_address[1]}/file"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert download(server.url, path, SHA256, progress=False) == path
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    assert server.asked == [None]


@pytest.mark.parametrize("resumes", [True, False])
def test_after_a_break_it_goes_on_where_it_stopped(resumes, server, tmp_path):
    path = tmp_path / "file"
    server.breaks_after, server.resumes = 100_000, resumes
    with pytest.raises(DataError, match="100000 bytes are kept, run it again to go on"):
        download(server.url, path, SHA256, progress=False)
    assert names(tmp_path) == ["file.part"]
    server.breaks_after = None
    download(server.url, path, SHA256, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
    assert names(tmp_path) == ["file"]


def test_a_break_shows_without_a_length_too(server, tmp_path):
    server.breaks_after, server.says_length = 100, False
    with pytest.raises(DataError, match="SHA-256"):
        download(server.url, tmp_path / "file", SHA256, progress=False)
    assert names(tmp_path) == []


def test_a_part_that_is_whole_is_only_renamed(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file", SHA256, progress=False)
    assert server.asked == []
    assert names(tmp_path) == ["file"]


def test_a_part_longer_than_the_file_is_given_up(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "file", SHA256, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_other_bytes_are_refused_and_deleted_and_the_old_file_stays(server, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(DataError, match=f"SHA-256 of http.*expected {SHA256}, found "):
        download(server.url, tmp_path / "file", SHA256, progress=False)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_part_of_other_bytes_costs_one_round_and_then_heals(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="SHA-256"):
        download(server.url, tmp_path / "file", SHA256, progress=False)
    download(server.url, tmp_path / "file", SHA256, progress=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_sends_too_much_is_cut_off(server, tmp_path):
    with pytest.raises(DataError, match="at most 1000 bytes"):
        download(server.url, tmp_path / "file", SHA256, progress=False, max_bytes=1000)
    assert "file" not in names(tmp_path)


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_is_told(status, server, tmp_path):
    server.status = status
    with pytest.raises(DataError, match=f"download of http.*expected 200 OK, found {status} "):
        download(server.url, tmp_path / "file", SHA256, progress=False)
    assert names(tmp_path) == []


def test_no_server(server, tmp_path):
    unused = server.url.replace(str(server.server_address[1]), "1")
    with pytest.raises(DataError, match=r"expected the whole file, found .*refused"):
        download(unused, tmp_path / "file", SHA256, progress=False)


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="download of http"):
        download(server.url, tmp_path / "file" / "file", SHA256, progress=False)


def test_only_http(tmp_path):
    with pytest.raises(ValueError, match="'file:///etc/passwd' is neither"):
        download("file:///etc/passwd", tmp_path / "file", SHA256)


def test_progress_is_shown(server, tmp_path, capsys):
    download(server.url, tmp_path / "file", SHA256)
    said = capsys.readouterr().err
    assert "file: 100%" in said
    assert "300k" in said
