"""LUCID_LOG, `debug` and LUCID_DUMP: what the compiler says of itself."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import lucid
from lucid import nn
from lucid.errors import UnknownNameError
from lucid.runtime.log import TOPICS

SHAPE = (1, 3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x))


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    yield
    for topic in TOPICS:
        logger = logging.getLogger(f"lucid.{topic}")
        logger.setLevel(logging.NOTSET)
        logger.handlers.clear()


def test_nothing_is_said_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    lucid.compile(Net(), SHAPE, threads=1)
    assert capsys.readouterr() == ("", "")


def test_topics_go_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUCID_LOG", "passes, schedule")
    for _ in range(2):
        lucid.compile(Net(), SHAPE, threads=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "lucid.passes: fold-batch-norm, into_weights:\n  %" in err
    assert "\nbecomes\n" in err
    assert err.count("lucid.schedule: ") == 2
    assert "lucid.kernels" not in err


def test_kernels_are_logged_with_their_cost(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    from lucid.codegen.kernels.driver import Driver
    from lucid.codegen.target import Target
    from lucid.runtime.cache import ObjectCache
    from lucid.runtime.library import KernelLibrary

    caplog.set_level(logging.DEBUG, "lucid.kernels")
    for _ in range(2):
        KernelLibrary(Target.host()).load([Driver()], ObjectCache(tmp_path))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("driver(profiled=False): compiled in ")
    assert second.startswith("driver(profiled=False): from the cache, ")


def test_options_ask_for_topics_too(capsys: pytest.CaptureFixture[str]) -> None:
    lucid.compile(Net(), SHAPE, options=lucid.CompileOptions(debug=["schedule"]))
    assert "lucid.schedule: batch_norm: Choice(" in capsys.readouterr().err


def test_an_unknown_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"no log of 'pases': .* passes, schedule, kernels"):
        lucid.compile(Net(), options=lucid.CompileOptions(debug=["pases"]))
    monkeypatch.setenv("LUCID_LOG", "all")
    with pytest.raises(UnknownNameError, match="no log of 'all'"):
        lucid.compile(Net())


def test_every_stage_is_dumped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUCID_DUMP", str(tmp_path / "dump"))
    fast = lucid.compile(Net(), SHAPE, threads=1)

    written = sorted((tmp_path / "dump").iterdir())
    assert [p.name.split("-", 3)[3] for p in written] == [f"{s}.txt" for s in fast.stages()]
    assert written[0].name == "Net-1x3x8x8-00-captured.txt"
    assert "batch_norm" in written[0].read_text()
    assert [p.read_text() for p in written] == [fast.ir(stage) for stage in fast.stages()]
