"""How setuptools builds the compiled core. For pyproject.toml; nothing imports it at run time.

``MEDIAD_CORE`` decides: ``require`` fails where the core cannot be built, ``auto`` (the default)
warns and goes on without it, ``python`` does not try.
"""

import os
import sys

# setuptools has no type information of its own.
from setuptools import Extension  # type: ignore[import-untyped, unused-ignore]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped, unused-ignore]

__all__ = ["BuildCore"]

_CHOICES = ("require", "auto", "python")

# No -march: the binary runs on any processor of its kind; _fir.h asks for wider instructions at
# run time.
_UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math"]


class BuildCore(build_ext):  # type: ignore[misc, unused-ignore]
    """``build_ext`` that may go without the extension."""

    def run(self) -> None:
        """Build what ``MEDIAD_CORE`` asks for."""
        choice = os.environ.get("MEDIAD_CORE") or "auto"
        if choice not in _CHOICES:
            sys.exit(f"MEDIAD_CORE is {choice!r}; it must be one of {', '.join(_CHOICES)}")
        self._is_required = choice == "require"
        if choice == "python":
            self.extensions.clear()
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Build one extension; on failure fail or warn, as ``MEDIAD_CORE`` says."""
        if self.compiler.compiler_type in ("unix", "mingw32"):
            ext.extra_compile_args += _UNIX_FLAGS
        try:
            super().build_extension(ext)
        # Whatever is missing or broken (compiler, headers, Cython), the Python line works without.
        except Exception as exc:
            if self._is_required:
                raise
            self._go_without(ext, exc)

    def _go_without(self, ext: Extension, reason: Exception) -> None:
        self.extensions.remove(ext)  # else it is expected among the outputs
        rule = "*" * 78
        print(
            f"{rule}\nWARNING: {ext.name} could not be built: {reason}\n"
            "mediad works without it, at several times the CPU per call.\n"
            f"To see why it failed, install with MEDIAD_CORE=require.\n{rule}",
            file=sys.stderr,
        )
