"""Streams that are closed, full or deaf; limits of the machine; a working folder that is gone."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retinue.cli.failures import describe

COMMAND = f"'{sys.executable}' -m retinue.cli"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")


def shell(line: str, **how: object) -> tuple[int, str, str]:
    done = subprocess.run(
        ["bash", "-c", line.replace("retinue ", f"{COMMAND} ")], capture_output=True, text=True,
        timeout=120, check=False, **how,
    )  # type: ignore[call-overload]  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("retinue recipes >&-", 0, ""),
        ("retinue --version >&- 2>&-", 0, ""),
        ("retinue nosuch 2>&-", 2, ""),
        ("retinue nosuch 2>/dev/full", 2, ""),
        ("retinue predict nothing - <&-", 2, "error: "),
        ("retinue --help >/dev/full", 1, "error: the disk is full, make room"),
        ("retinue --help | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("mkdir gone; cd gone; rmdir ../gone; retinue recipes", 2, "working folder is gone, cd to"),
        ("env -u HOME LANG=C PYTHONUTF8=0 PYTHONIOENCODING=ascii retinue recipes", 0, ""),
    ],
)
def test_streams_and_folders(tmp_path: Path, line: str, code: int, told: str) -> None:
    found, _, err = shell(line, cwd=tmp_path)
    assert (found, bool(err)) == (code, bool(told))
    assert told in err
    assert "expected" not in err
    assert err.count("\n") <= 1


def test_what_is_opened_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Or a library's print would land in the first file that was opened, a model maybe."""
    code = (
        "from retinue.cli.failures import secure_streams as s; s(); print(open('f').fileno() > 2)"
    )
    (tmp_path / "f").touch()
    line = f"'{sys.executable}' -c \"{code}; import sys; sys.exit(open('f').fileno() < 3)\" >&- <&-"
    assert shell(line, cwd=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EFBIG, "File too large"), "error: a file grows larger than is allowed"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "too many files are open, 'x', raise"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "name is too long .*, 'x'"),
        (OSError(errno.EIO, "Input/output error"), "error: input/output error, check the path"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "Read-only file system, 'x', check"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
         "no folder for temporary files, set TMPDIR"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate "
                      "memory: you tried to allocate 9 bytes."), "error: out of memory, a smaller"),
        (MemoryError(), "error: out of memory, a smaller"),
        (RuntimeError("can't start new thread"), "no thread can be started, raise"),
        (ImportError("libtorch.so: failed to map segment"), "library cannot be loaded .*allow"),
    ],
)  # fmt: skip
def test_limits_of_the_machine_are_said(error: BaseException, told: str) -> None:
    line, code = describe(error)
    assert re.search(told, line), line
    assert code == 1
    assert "not expected" not in line


def test_what_nobody_expects_says_so() -> None:
    assert "this is not expected" in describe(ValueError("x"))[0]
    assert "this is not expected" in describe(ModuleNotFoundError("x"))[0]
    assert describe(BrokenPipeError()) == ("", 141)


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs ulimit")
def test_a_file_size_limit_is_one_line(tmp_path: Path) -> None:
    line = "trap '' XFSZ; ulimit -f 0; retinue recipes finetune --copy mine.yaml"
    code, _, err = shell(line, cwd=tmp_path)
    assert code == 1
    assert "grows larger than is allowed" in err
    assert list(tmp_path.iterdir()) == []
