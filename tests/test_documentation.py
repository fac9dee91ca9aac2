"""What README and docs say works: their Python and their commands run, their links lead somewhere.

A fenced block says by its language what it is: `python` and `console` are run, `text` is output or
illustration. What a block needs, or why it is not run, stands in HTML comments right before it:

    <!-- needs: torch torchvision -->       skipped where one of these packages is not installed
    <!-- not run: it takes hours -->
    <!-- in tests: resnest_50 -> resnest_digits; 224 -> 32 -->

Everything that the last kind replaces must be there. The blocks of a page run in order, in a folder
with the files of `reader`. A command that ends in `&` runs until the end of its page.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import lucid
from lucid.cli import command_line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES += [ROOT / "benchmarks" / "README.md", ROOT / "SECURITY.md"]
LANGUAGES = ("python", "console", "text")
COMMENTS = ("needs", "not run", "in tests")
NET = """graph net(%x: f32[N,3,16,16]) -> f32[N,8,16,16] {
  param @conv.weight: f32[8,3,3,3]
  %c = conv2d(%x, @conv.weight) {padding=(1,1,1,1)} : f32[N,8,16,16] at "conv"
  %y = relu(%c) : f32[N,8,16,16] at "relu"
  return %y
}
"""


@dataclass
class Block:
    """A fenced block, with the comments before it. `names`: of the Python of its page so far."""

    page: Path
    line: int
    language: str
    text: str
    comments: dict[str, str] = field(default_factory=dict)
    names: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def replaced(self) -> str:
        """The text as it is run."""
        text = self.text
        for change in filter(None, self.comments.get("in tests", "").split(";")):
            old, arrow, new = (part.strip() for part in change.partition("->"))
            assert arrow, f"{self}: {change!r} is no OLD -> NEW"
            assert old in text, f"{self}: {old!r} is not in the block"
            text = text.replace(old, new)
        return text


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    comments: dict[str, str] = {}
    names: dict[str, object] = {"__name__": "__main__"}
    inside: Block | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text.startswith("```"):
            if inside is None:
                inside = Block(page, number, text[3:], "", comments, names)
            else:
                found.append(inside)
                inside, comments = None, {}
        elif inside is not None:
            inside.text += (
                line.removeprefix(" " * (len(line) - len(line.lstrip()))) + "\n"
                if (inside.language == "console")
                else line + "\n"
            )
        elif comment := re.fullmatch(r"<!-- ([a-z ]+): (.*) -->", text):
            comments[comment[1]] = comment[2]
        elif text:
            comments = {}
    assert inside is None, f"{page}: a block is not closed"
    return found


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.language in ("python", "console")]


# -- running --------------------------------------------------------------------------------


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of someone who follows a page: the clone's examples, a photo, a small network as
    IR text with inputs, and a file of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(Path(lucid.__file__).parents[1]))  # of other processes
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    Image.new("RGB", (300, 260), "green").save("photo.jpg")
    Path("net.lir").write_text(NET)
    np.savez("x.npz", x=np.ones((2, 3, 16, 16), np.float32))
    return tmp_path


@pytest.fixture
def background():
    """Starts `lucid serve`, and waits until it answers."""
    started = []

    def start(words: list[str]) -> None:
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}  # this process's, wherever it is now
        command = [sys.executable, "-m", *words]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **path}
        )
        started.append(server)
        address = re.search(r"http://\S+:\d+", server.stdout.readline())
        assert address, f"{words} did not start"
        assert urllib.request.urlopen(f"{address[0]}/v2/health/ready", timeout=60).status == 200

    yield start
    for server in started:
        server.terminate()
        server.communicate()


def run_python(block: Block) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.replaced(), str(block), "exec"), block.names)


def run_console(block: Block, monkeypatch: pytest.MonkeyPatch, background) -> None:
    """Every command line of a block, with pipes between commands, output to files, and variables
    set before a command; `lucid` alone is run, and `curl` of a shell."""
    for line in block.replaced().splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[-1] == "&":
            background(words[:-1])
            continue
        if words[0] == "curl":
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            assert done.returncode == 0, f"{block}: {line}\n{done.stdout}{done.stderr}"
            continue
        words, _, output = _cut(words, ">")
        text = ""
        with monkeypatch.context() as patch:
            while words:
                command, _, words = _cut(words, "|")
                while "=" in command[0]:
                    name, _, value = command.pop(0).partition("=")
                    patch.setenv(name, value)
                assert command[0] == "lucid", f"{block}: {line!r} is not a command of Lucid"
                result = CliRunner().invoke(command_line(), _globbed(command[1:]), input=text)
                assert result.exit_code == 0, f"{block}: {line}\n{result.output}"
                text = result.stdout
        if output:
            Path(output[0]).write_text(text)


def _cut(words: list[str], mark: str) -> tuple[list[str], str, list[str]]:
    if mark not in words:
        return words, "", []
    at = words.index(mark)
    return words[:at], mark, words[at + 1 :]


def _globbed(words: list[str]) -> list[str]:
    """The words, file names with `*` replaced by the files."""
    found: list[str] = []
    for word in words:
        files = sorted(map(str, Path().glob(word))) if word.endswith("*.png") else []
        found += files or [word]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_runs(page, reader, monkeypatch, background):
    lacking = []
    for block in runnable(page):
        if "not run" in block.comments:
            continue
        missing = [n for n in block.comments.get("needs", "").split() if not _installed(n)]
        if missing:
            lacking.append(f"{block} needs {', '.join(missing)}")
        elif block.language == "python":
            run_python(block)
        else:
            run_console(block, monkeypatch, background)
    if lacking:
        pytest.skip("; ".join(lacking))


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


# -- what is not run ------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: which of {', '.join(LANGUAGES)} is it?"
        assert set(block.comments) <= set(COMMENTS), block
        if block.language == "text":
            assert not block.comments, f"{block} is not run anyway"
        if "not run" in block.comments:
            assert len(block.comments["not run"].split()) >= 2, f"{block}: why is it not run?"
            assert list(block.comments) == ["not run"], block


COMMANDS = get_command(command_line()).commands
INLINE = re.compile(r"`(lucid [a-z].*?)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_have_the_options_they_name(page):
    """In prose and tables, where MODEL stands for a model."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in INLINE.findall(prose):
        for command in line.replace("\\|", " ").split(" | "):
            name, *words = command.removeprefix("lucid ").split()
            assert name in COMMANDS, f"{page.name}: {line}"
            known = {o for p in COMMANDS[name].params for o in p.opts}
            options = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
            assert options <= known, f"{page.name}: {line} has no {options - known}"


def test_options_in_the_readmes_table_exist():
    for name, cells in re.findall(r"\| `lucid (\w+)[^`]*` \|(.*)\|", PAGES[0].read_text()):
        known = {o for p in COMMANDS[name].params for o in p.opts}
        named = set(re.findall(r"`(--[a-z0-9-]+)", cells))
        assert named <= known, f"lucid {name} has no {named - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_sources_are_there(page):
    """`src/lucid/...`, from the root of the clone, in every page alike."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"`lucid/[a-z_/]+\.py", text), "write src/lucid/..."
    for path in re.findall(r"`(src/lucid/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
