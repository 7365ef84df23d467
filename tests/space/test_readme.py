"""What README says of the page's API, run as it stands there, but for the address."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:7860"


def snippet(language, word, server):
    """The one block of this language that has this word, for the page at `server`."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if word in block]
    assert ADDRESS in block
    return block.replace(ADDRESS, server)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """The clone, where the snippets' paths lead somewhere; temporary files go elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_the_python_of_readme(server, home, capsys):
    exec(snippet("python", "gradio_client", server), {})
    said = capsys.readouterr().out.splitlines()[-3:]
    for line, name in zip(said, ("FCN-32s", "FCN-16s", "FCN-8s"), strict=True):
        assert line.startswith(name) and "'road': " in line and line.endswith(".png")
        assert Path(line.rpartition(" ")[2]).read_bytes().startswith(b"\x89PNG")


def test_the_curl_of_readme(server, home):
    done = subprocess.run(["sh", "-ec", snippet("sh", "curl", server)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "event: complete" in done.stdout, done.stdout + done.stderr
    assert '"name": "FCN-8s"' in done.stdout
