"""A model file for all tests of the server, which are skipped where its packages are missing."""

import pytest
from typer.testing import CliRunner

import lucid
from lucid.cli import command_line

try:
    import lucid.serve
except ImportError as error:
    missing = str(error)

    class Missing(pytest.Module):
        def collect(self):
            pytest.skip(missing, allow_module_level=True)

    def pytest_pycollect_makemodule(module_path, parent):
        return Missing.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory):
    """resnest_digits with its weights and preprocessing, as `lucid compile` writes it."""
    path = tmp_path_factory.mktemp("models") / "digits.lucid"
    result = CliRunner().invoke(command_line(), ["compile", "resnest_digits", "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="session")
def digits(digits_file):
    return lucid.load(digits_file)
