"""Downloads from a local server: a file appears complete and verified, or not at all."""

from __future__ import annotations

import errno
import hashlib
import http.server
import subprocess
import sys
import threading

import pytest

from common import download
from common.errors import UserError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:5000] if self.path == "/broken" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(("page", "checksum"), [("file", SHA256), ("unsized", BLOB)])
def test_a_checked_file_arrives_whole(server, tmp_path, page, checksum):
    path = download.fetch(f"{server}/{page}", tmp_path / "new" / "a.mat", checksum=checksum, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["a.mat"]


@pytest.mark.parametrize(
    ("page", "checks", "sentence"),
    [
        ("file", {"checksum": "0" * 64}, f"has sha256 {SHA256}, expected 0000"),
        ("file", {"checksum": "0" * 40}, "has git id .*, expected 0000"),
        ("file", {"size": 7}, "has 1,024,000 bytes, expected 7"),
        ("missing", {}, "cannot be fetched .*Not Found.*download it by hand and save it as"),
        ("broken", {}, "cannot be fetched"),
    ],
)
def test_a_wrong_file_is_not_kept(server, tmp_path, page, checks, sentence):
    (tmp_path / "a.mat").write_bytes(b"old")
    with pytest.raises(UserError, match=sentence):
        download.fetch(f"{server}/{page}", tmp_path / "a.mat", **checks)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.mat", b"old")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://no-such-host.invalid/x", "nonsense"])
def test_unreachable(tmp_path, url):
    with pytest.raises(UserError, match="cannot be fetched"):
        download.fetch(url, tmp_path / "a.mat", timeout=5)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device", "a.mat")

    monkeypatch.setattr("common.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        download.fetch(f"{server}/file", tmp_path / "a.mat")
    assert not list(tmp_path.iterdir())


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["download", *map(str, arguments)])
    download.main()


def test_command_fetches_what_has_an_address_and_says_the_rest(server, tmp_path, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(download, "fetch", lambda url, path, **checks: fetched.append((url, path.name, checks)))
    run(monkeypatch, "indian_pines", "--data-root", tmp_path)
    assert [name for _, name, _ in fetched] == ["Indian_pines_corrected.mat", "Indian_pines_gt.mat"]
    assert all(url.startswith("https://www.ehu.eus/ccwintco/uploads/") for url, _, _ in fetched)
    assert fetched[1][2]["checksum"].startswith("65c4687a")
    printed = capsys.readouterr().out
    assert "indian_pines/IndianTR123_temp123.tif must be placed by hand: from github.com/danfenghong" in printed


def test_command_with_an_unknown_scene(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "mars", "--data-root", tmp_path)
    assert ended.value.code == 2
    assert "scene 'mars' is unknown; choose one of indian_pines" in capsys.readouterr().err


def test_help_lists_every_scene_and_file():
    command = [sys.executable, "-m", "common.download", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pavia_university/PaviaU.mat: fetched" in printed
    assert "houston2013/2013_IEEE_GRSS_DF_Contest_CASI.tif: place by hand, request" in printed


@pytest.fixture
def project(tmp_path, monkeypatch, server):
    """An installed project with one file that can be fetched and one that cannot."""
    package = tmp_path / "site" / "paperx"
    package.mkdir(parents=True)
    (package / "released.toml").write_text(
        f'[paperx_one]\nwhat = "X"\nfile = "one.pth"\nurl = "{server}/file"\nsize = {len(CONTENT)}\n'
        f'git_blob = "{BLOB}"\n[paperx_two]\nwhat = "Y"\nplace = "https://drive.example/2"\nnote = "a page"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("FULLPAPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "one.pth"


def test_weights_are_fetched_once_and_verified(project, monkeypatch, capsys):
    run(monkeypatch, "paperx_one")
    assert project.read_bytes() == CONTENT
    assert str(project) in capsys.readouterr().out
    monkeypatch.setattr(download, "fetch", None)
    assert download.weights("paperx_one") == project


def test_other_bytes_are_not_kept(project, monkeypatch):
    entry = download.released()["paperx_one"] | {"git_blob": "0" * 40}
    monkeypatch.setattr(download, "released", lambda: {"paperx_one": entry})
    with pytest.raises(UserError, match=r"has git id .* expected 0{40}; nothing was kept"):
        download.weights("paperx_one")
    assert not project.exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("paperx_two", "cannot be fetched; get it by hand at https://drive.example/2"),
        ("paperx_three", "no such file or folder, and no released weights; known names: .*paperx_one"),
    ],
)
def test_weights_that_cannot_be_fetched(project, name, sentence):
    with pytest.raises(UserError, match=sentence):
        download.weights(name)
