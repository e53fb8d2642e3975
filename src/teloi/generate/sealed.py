"""The inside of the sandbox: a program of its own, started by `teloi.generate.sandbox`. Standard library only.

It limits itself, imports what the job's code imports, gives up every system call but those that computing needs, and
only then runs the code. From that moment the kernel refuses it all else: no file can be opened or listed, none made
or changed, no socket, no process, no thread, no signal to others. What it can do is compute, allocate up to its limit,
write to the two pipes it was given, and end.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

COMPUTING = (
    *(0, 1, 3, 5, 8, 19, 20),  # read, write, close, fstat, lseek, readv, writev: of what is open already
    *(9, 10, 11, 12, 25, 28),  # mmap, mprotect, munmap, brk, mremap, madvise
    *(13, 14, 15, 131, 219),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, restart_syscall
    *(24, 39, 60, 63, 102, 104, 107, 108, 110, 186, 231),  # sched_yield, getpid, exit, uname, get*id, exit_group
    *(36, 37, 38, 96, 98, 100, 201, 228, 229),  # timers of its own, clocks, getrusage
    *(202, 204, 318, 334),  # futex, sched_getaffinity, getrandom, rseq
)
"""The system calls of x86-64 that stay allowed."""

SLEEPING = (35, 230)
"""nanosleep and clock_nanosleep succeed at once: what waits for time would end by the clock of a busy machine."""

X86_64, X32 = 0xC000003E, 0x40000000
"""The architecture whose numbers these are, and the first number of its 32-bit table."""

ALLOW, REFUSE, SUCCEED, KILL = 0x7FFF0000, 0x00050001, 0x00050000, 0x80000000
"""What a filter answers: go on, fail with EPERM, return 0, end the process."""

_NAMES = (
    "abc array ast asyncio base64 binascii bisect builtins calendar cmath cmd codecs collections colorsys "
    "concurrent contextlib contextvars copy copyreg csv ctypes dataclasses datetime decimal difflib dis enum errno "
    "fnmatch fractions functools gc genericpath graphlib hashlib heapq hmac html inspect io ipaddress itertools "
    "json keyword linecache locale logging math multiprocessing numbers operator os pathlib pickle platform "
    "posixpath pprint queue random re reprlib resource secrets select selectors shutil signal socket statistics "
    "string struct subprocess sys tempfile textwrap threading time timeit token tokenize traceback types typing "
    "unicodedata unittest urllib uuid warnings weakref xml zlib zoneinfo "
)
MODULES = frozenset(_NAMES.split())
"""The standard library's modules that code may import; importing one of them does nothing else."""

HELPERS = ("_strptime", "encodings.ascii", "encodings.latin_1", "encodings.utf_16", "unicodedata")
"""What functions of those import when they are called."""


def main(job_file: int, report_pipe: int) -> None:
    """Read a job from a file, run it sealed, and write what came of it to the pipe."""
    os.rmdir(os.getcwd())  # an empty directory, in which nothing can be made any more
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    nonce, sources = job["nonce"], [job["program"], *job["tests"]]
    # Made beforehand: there may be no room for it then.
    no_memory = report(nonce, "memory", "MemoryError")
    limit(job["cpu_seconds"], job["memory"])
    tell_death(job["parent"])
    verdict, detail = "", ""
    trees: list[ast.Module] = []
    try:
        trees = [ast.parse(source) for source in sources]
        load([*trees, ast.parse("\n".join(f"import {name}" for name in HELPERS))])
    except Exception as error:
        verdict, detail = judged(error, False)
    if problem := seal():
        os.write(report_pipe, report(nonce, "unavailable", problem))
        return
    if not verdict:
        verdict, detail = run(trees, bool(job["tests"]))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(report_pipe, no_memory if verdict == "memory" else report(nonce, verdict, detail))
    os._exit(0)


def run(trees: Sequence[ast.Module], tested: bool) -> tuple[str, str]:
    """The verdict on a program (the first of these) and its tests, and a line of detail."""
    scope: dict[str, Any] = {"__name__": "program" if tested else "__main__", "__builtins__": __builtins__}
    verdict, detail = "passed", ""
    for place, tree in enumerate(trees):
        try:
            exec(compile(tree, "program" if place == 0 else f"test {place}", "exec"), scope)
        except SystemExit as error:
            if tested or error.code not in (None, 0):
                verdict, detail = "error", f"SystemExit: {error.code}"
        except BaseException as error:
            verdict, detail = judged(error, place > 0)
        if verdict != "passed":
            break
    scope.clear()  # gives back what it has taken, so that there is room for the report
    return verdict, detail


def judged(error: BaseException, in_test: bool) -> tuple[str, str]:
    """The verdict on an error that nothing caught, and what it said."""
    try:
        detail = f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # its __str__ is the program's own
        detail = "an error that cannot be printed"
    if isinstance(error, MemoryError):
        return "memory", detail
    if isinstance(error, PermissionError):
        return "forbidden", detail
    return ("failed" if in_test and isinstance(error, AssertionError) else "error"), detail


def report(nonce: str, verdict: str, detail: str) -> bytes:
    """What the parent reads; it believes only who knows the nonce."""
    return json.dumps({"nonce": nonce, "verdict": verdict, "detail": detail}).encode()


def limit(cpu_seconds: int, memory: int) -> None:
    """Processor time, memory, and no byte to any file; the limits cannot be raised again once the process is sealed."""
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def tell_death(parent: int) -> None:
    """Die with the process that waits for the verdict."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def load(trees: Sequence[ast.Module]) -> None:
    """Carry out the import statements that name modules of the list: afterwards no file can be opened."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            roots, parts = {name.split(".")[0] for name in names}, {part for name in names for part in name.split(".")}
            if roots <= MODULES | set(HELPERS) | {"encodings"} and "__main__" not in parts:
                with contextlib.suppress(Exception):  # it will be raised where the program imports it
                    exec(compile(ast.Module([node], []), "import", "exec"), {})
    time.tzset()


def seal() -> str:
    """Give up all system calls but the listed ones, and try it. What is wrong, or nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = filter_code()
    buffer = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no_new_privs, which a filter needs
        return f"no_new_privs: {os.strerror(ctypes.get_errno())}"
    if libc.prctl(22, 2, program, 0, 0) != 0:  # seccomp, by filter
        return f"seccomp: {os.strerror(ctypes.get_errno())}"
    for name, number, *arguments in (("open", 2, b"/", 0), ("socket", 41, 2, 1, 0), ("setrlimit", 160, 7, None)):
        if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() != 1:
            return f"the kernel let it {name}"
    return ""


def filter_code() -> bytes:
    """The filter: classic BPF instructions (code, jump if true, jump if false, operand) over number and architecture
    of a system call."""
    load_word, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    calls = [*((number, 2) for number in COMPUTING), *((number, 1) for number in SLEEPING)]
    lines = [(load_word, 0, 0, 4), (equal, 1, 0, X86_64), (answer, 0, 0, KILL)]
    lines += [(load_word, 0, 0, 0), (at_least, 0, 1, X32), (answer, 0, 0, KILL)]
    # Each jumps over the tests that are left and as many answers.
    lines += [(equal, len(calls) - place - 1 + over, 0, number) for place, (number, over) in enumerate(calls)]
    lines += [(answer, 0, 0, what) for what in (REFUSE, SUCCEED, ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
