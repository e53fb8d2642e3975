"""Running code that a model wrote, without trusting it.

Each program runs in a process of its own (`teloi.generate.sealed`), on Linux on x86-64. What keeps it in:

- **seccomp**: before the code runs, the process gives up all system calls but those that computing needs. The kernel
  then refuses to open, list, make or change any file, to open a socket, to start a process or thread, to signal or
  trace others, and to lift limits: for root as for an ordinary user, with ctypes as without. It works in containers
  too, and needs no namespace. The modules of the standard library that the code imports are imported just before;
  others, and whatever is imported by a computed name, are not there.
- **rlimits**: processor time, memory, no byte written to any file, no core dump.
- **this process**: reads at most so much output, and ends what takes longer by the clock than ever foreseen. If this
  process dies, so does the other.

Nothing is left behind: no process, since none can be started, and no file, since none can be made; the directory in
which the program stands is removed before it starts. Sleeping takes no time, so that processor time decides and not how
busy the machine is. Hashes of strings have no random seed.

What it does not do: a program shares its process with its tests, so one written to that end can fool these (by an
object that equals everything, say). Ending early fools nothing. Where the kernel does not refuse what it must, or on
another system, `run` raises instead of running anything.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_args

from teloi.errors import TeloiError, UsageError

Verdict = Literal["passed", "failed", "error", "timeout", "memory", "forbidden", "output"]
"""passed: program and tests ran to their end. failed: a test's assertion did not hold. error: another exception, or an
end before its time. timeout: too much processor time, or no end. memory: more than its limit. forbidden: it tried what
the sandbox refuses. output: it printed too much."""

INSIDE = Path(__file__).with_name("sealed.py")


class SandboxUnavailable(TeloiError):
    """There is no isolation here, so nothing was run."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. The wall time is for what does not compute at all (a deadlock)."""

    cpu_seconds: int = 4
    memory: int = 256 * 2**20
    """Bytes of address space, the interpreter's own 30 MB included."""
    output: int = 2**16
    """Bytes printed."""
    wall_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.cpu_seconds < 1 or self.memory < 2**26 or self.output < 0 or self.wall_seconds <= 0:
            raise UsageError("a program needs at least 1 second, 64 MiB of memory and some time")


@dataclass(frozen=True)
class Outcome:
    """What came of a program: the verdict, the error's line where there was one, and what it printed."""

    verdict: Verdict
    detail: str
    output: str


LIMITS = Limits()


def run(program: str, tests: Sequence[str] = (), stdin: str = "", limits: Limits = LIMITS) -> Outcome:
    """Run a Python program, then each test (statements that see its names), in a sandbox; it reads `stdin`.

    Without tests it runs as a script (`__name__` is "__main__"). SandboxUnavailable where it cannot be isolated."""
    require()
    return _run(program, tests, stdin, limits)


def run_all(jobs: Sequence[tuple[str, Sequence[str]]], limits: Limits = LIMITS) -> list[Outcome]:
    """`run` of several programs with their tests, one a core at a time, in their order."""
    require()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda job: _run(job[0], job[1], "", limits), jobs))


@functools.cache
def require() -> None:
    """SandboxUnavailable unless a program runs here and is refused a file."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or not sys.executable:
        raise SandboxUnavailable("code that a model wrote runs on Linux on x86-64 only: elsewhere it is not isolated")
    for program, expected in (("pass", "passed"), ("open('/')", "forbidden")):
        if (found := _run(program, (), "", LIMITS)).verdict != expected:
            raise SandboxUnavailable(f"code that a model wrote cannot be isolated here: {found.verdict} {found.detail}")


def _run(program: str, tests: Sequence[str], stdin: str, limits: Limits) -> Outcome:
    nonce = secrets.token_hex(16)
    job = {"program": program, "tests": list(tests), "nonce": nonce, "parent": os.getpid()}
    job |= {"cpu_seconds": limits.cpu_seconds, "memory": limits.memory}
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    with _file(json.dumps(job)) as described, _file(stdin) as given, _empty() as place, _pipe() as (reads, writes):
        process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", str(INSIDE), str(described.fileno()), str(writes)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=place,
            env=environment,
            pass_fds=(described.fileno(), writes),
            start_new_session=True,
        )
        with process:
            output, verdict = _watch(process, limits)
            text = output.decode(errors="replace")
            if verdict is not None:
                return Outcome(verdict, "", text)
        os.set_blocking(reads, False)
        try:
            told = json.loads(os.read(reads, 2**16))
        except (BlockingIOError, ValueError, RecursionError):  # nothing, or something that the program wrote
            told = None
    if isinstance(told, dict) and told.get("nonce") == nonce:
        if told["verdict"] not in get_args(Verdict):
            raise SandboxUnavailable(f"code that a model wrote cannot be isolated here: {told['detail']}")
        return Outcome(told["verdict"], told["detail"], text)
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return Outcome("timeout", f"{limits.cpu_seconds} seconds of the processor", text)
    return Outcome("error", f"ended before its time with status {process.returncode}", text)


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, Verdict | None]:
    """What a process prints until it ends, and the verdict where it had to be ended."""
    assert process.stdout is not None
    output, deadline = b"", time.monotonic() + limits.wall_seconds
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                chunk = os.read(process.stdout.fileno(), 2**16)
                output += chunk
                if len(output) > limits.output:
                    return output[: limits.output], "output"
                if not chunk:
                    process.wait(left)
                    return output, None
        return output, "timeout"
    except subprocess.TimeoutExpired:
        return output, "timeout"
    finally:
        process.kill()  # nothing where it has ended


@contextlib.contextmanager
def _file(text: str) -> Iterator[IO[bytes]]:
    """An open file of this text, which has no name."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.seek(0)
        yield file


@contextlib.contextmanager
def _empty() -> Iterator[str]:
    """An empty directory, which the process that is started in it removes."""
    place = tempfile.mkdtemp(prefix="teloi-sandbox-")
    try:
        yield place
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(place)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
