"""Every program in the README runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
URL = "nats://localhost:4222"


def programs(language: str) -> list[str]:
    return re.findall(rf"<!-- test: {language} -->\n```{language}\n(.*?)```", README, re.DOTALL)


def test_every_program_is_marked_for_testing() -> None:
    fences = re.findall(r"^```(python|go)$", README, re.MULTILINE)
    assert len(fences) == len(programs("python")) + len(programs("go"))


@pytest.mark.parametrize("program", programs("python"), ids=lambda p: p.splitlines()[0])
def test_python_programs(program: str, nats_url: str, tmp_path: Path) -> None:
    assert URL in program
    script = tmp_path / "program.py"
    script.write_text(program.replace(URL, nats_url))
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("program", programs("go"), ids=["go"])
def test_go_programs(program: str, nats_url: str) -> None:
    assert URL in program
    # Inside the module, which it imports; the underscore keeps it out of ./...
    folder = ROOT / "build" / "_readme"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.go").write_text(program.replace(URL, nats_url))
    prepare = (
        "import natslease, sys; q = natslease.Client(sys.argv[1]).queue('images');"
        "q.ensure(); q.publish([b'hello'])"
    )
    subprocess.run([sys.executable, "-c", prepare, nats_url], timeout=60, check=True)
    done = subprocess.run(
        ["go", "run", f"./{folder.relative_to(ROOT)}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
