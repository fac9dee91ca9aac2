"""What a command line names: files, versions and folders."""

from pathlib import Path

import pytest

from lucid.errors import InputError
from lucid.serve.sources import Source, parse_sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.lucid", "b.lucid", "net/1/model.lucid", "net/3/model.lucid", "net/x/y", "no"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("empty").mkdir()


def test_names_and_versions(folder):
    a, b = Path("a.lucid"), Path("b.lucid")
    for arguments, sources in [
        (["a.lucid"], [Source("a", {"1": a})]),
        (["cat=a.lucid", "dog:7=b.lucid"], [Source("cat", {"1": a}), Source("dog", {"7": b})]),
        (["cat=a.lucid", "cat:2=b.lucid"], [Source("cat", {"1": a, "2": b})]),
        (["net"], [Source("net", {}, (Path("net"),))]),
        (["n=net", "n:2=a.lucid"], [Source("n", {"2": a}, (Path("net"),))]),
    ]:
        assert parse_sources(arguments) == tuple(sources)
    assert list(parse_sources(["n=net", "n:2=a.lucid"])[0].versions()) == ["2", "1", "3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["c.lucid"], "no such file"),
        (["empty"], "no versions"),
        (["a b=a.lucid"], "names no model"),
        (["../x=a.lucid"], "names no model"),
        (["a:0=a.lucid"], "names no model"),
        (["a:one=a.lucid"], "names no model"),
        (["=a.lucid"], "names no model"),
        (["a.lucid", "a=b.lucid"], "version 1 already"),
        (["n=net", "n:3=a.lucid"], "version 3 twice"),
    ],
)
def test_what_names_no_model(folder, arguments, says):
    with pytest.raises(InputError, match=says):
        parse_sources(arguments)
