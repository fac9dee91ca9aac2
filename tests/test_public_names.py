"""What `import lucid` gives: the public names, the errors among them, and that quickly."""

import pydoc

import pytest
from python_process import run_python

import lucid
from lucid import errors


def test_every_error_is_at_the_top_level() -> None:
    kinds = [
        v for v in vars(errors).values() if isinstance(v, type) and v.__module__ == "lucid.errors"
    ]
    assert lucid.LucidError in kinds
    for kind in kinds:
        assert issubclass(kind, lucid.LucidError | Warning)
        assert getattr(lucid, kind.__name__) is kind
        assert kind.__name__ in lucid.__all__


def test_dir_and_help_show_the_public_names() -> None:
    assert {n for n in dir(lucid) if not n.startswith("__")} == set(lucid.__all__)
    for name in lucid.__all__:
        assert getattr(lucid, name) is not None
    text = pydoc.plain(pydoc.render_doc(lucid))
    for line in ("\n    compile(model", "\n    load(path", "\n    class CompiledModel("):
        assert line in text
    assert "Any =" not in text


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compiel'"):
        _ = lucid.compiel


def test_the_compiler_is_imported_when_first_asked_for() -> None:
    code = (
        "import sys, lucid; dir(lucid);"
        "assert not {'llvmlite', 'networkx', 'torch', 'PIL'} & set(sys.modules); lucid.compile;"
        "assert 'llvmlite' in sys.modules"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
