"""What building does with and without a compiler, as ``MEDIAD_CORE`` says."""

import pytest

# setuptools has no type information of its own.
from setuptools import Distribution, Extension  # type: ignore[import-untyped, unused-ignore]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped, unused-ignore]

from mediad.line._build import BuildCore


class Broken(Exception):
    """What a compiler's failure looks like."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> BuildCore:
    """A build of one extension that cannot be compiled; the extensions it tries are in `tried`."""
    extension = Extension("mediad.line._core", ["_core.c"])
    command = BuildCore(Distribution({"ext_modules": [extension]}))
    command.finalize_options()
    command.compiler = type("Compiler", (), {"compiler_type": "unix"})()
    command.tried = []

    def build_extension(self: BuildCore, ext: Extension) -> None:
        self.tried.append(ext)
        raise Broken("no compiler")

    def run(self: BuildCore) -> None:
        for ext in list(self.extensions):
            self.build_extension(ext)

    monkeypatch.setattr(build_ext, "build_extension", build_extension)
    monkeypatch.setattr(build_ext, "run", run)
    return command


def test_require_fails(command: BuildCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_CORE", "require")
    with pytest.raises(Broken):
        command.run()


@pytest.mark.parametrize("choice", ["auto", ""])
def test_auto_warns_and_goes_on_without(
    command: BuildCore,
    choice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDIAD_CORE", choice)
    command.run()
    assert len(command.tried) == 1
    assert command.extensions == []
    assert "WARNING: mediad.line._core could not be built: no compiler" in capsys.readouterr().err


def test_python_does_not_try(command: BuildCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_CORE", "python")
    command.run()
    assert command.tried == []


def test_another_choice_is_refused(command: BuildCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIAD_CORE", "fast")
    with pytest.raises(SystemExit, match="'fast'; it must be one of require, auto, python"):
        command.run()


def test_unix_compilers_get_the_flags_of_the_filters(
    command: BuildCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIAD_CORE", "auto")
    command.run()
    flags = command.tried[0].extra_compile_args
    assert "-O3" in flags
    assert not any(flag.startswith("-march") for flag in flags)
