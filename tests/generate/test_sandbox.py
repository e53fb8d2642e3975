"""Hostile programs: each ends with a named verdict and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from teloi.errors import UsageError
from teloi.generate import sandbox
from teloi.generate.sandbox import Limits, SandboxUnavailable, Verdict, run, run_all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a sandbox on Linux only")

SHORT = Limits(cpu_seconds=1)

HOSTILE: dict[str, tuple[str, Verdict]] = {
    "reads a file outside": ("print(open({secret!r}).read())", "forbidden"),
    "reads the list of users": ("print(open('/etc/passwd').read())", "forbidden"),
    "lists the home": ("import pathlib; print(list(pathlib.Path({home!r}).iterdir()))", "forbidden"),
    "looks whether a file is there": ("import os; os.stat({secret!r})", "forbidden"),
    "reads its own environment": ("print(open('/proc/self/environ').read())", "forbidden"),
    "changes a file's mode": ("import os; os.chmod({secret!r}, 0)", "forbidden"),
    "removes a file": ("import os; os.remove({secret!r})", "forbidden"),
    "opens a socket": ("import socket; socket.socket().connect(('127.0.0.1', 9))", "forbidden"),
    "opens a pair of sockets": ("import socket; socket.socketpair()", "forbidden"),
    "forks without end": ("import os\nwhile True: os.fork()", "forbidden"),
    "forks without end and hears no refusal": (
        "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
        "timeout",
    ),
    "starts a program": ("import subprocess; subprocess.run(['/bin/sh', '-c', 'sleep 100'])", "forbidden"),
    "becomes a program": ("import os; os.execv('/bin/sh', ['sh'])", "forbidden"),
    "starts threads": ("import threading; threading.Thread(target=print).start()", "error"),
    "kills who started it": ("import os; os.kill(os.getppid(), 9)", "forbidden"),
    "fills memory bit by bit": ("kept = []\nwhile True: kept.append(bytearray(10**6))", "memory"),
    "fills memory in a function": (
        "def fill():\n kept = []\n while True: kept.append([0] * 10**4)\nfill()",
        "memory",
    ),
    "fills memory at once": ("bytearray(10**12)", "memory"),
    "fills the disk": ("i = 0\nwhile True:\n i += 1\n open(f'{{i}}', 'wb').write(bytes(10**6))", "forbidden"),
    "fills a file in memory": ("import os; os.memfd_create('x')", "forbidden"),
    "loops for ever": ("while True: pass", "timeout"),
    "loops for ever and ignores the signal": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
    ),
    "sleeps for ever": ("import time\nwhile True: time.sleep(1000)", "timeout"),
    "prints for ever": ("while True: print('x' * 100)", "output"),
    "prints for ever past its stream": ("import os\nwhile True: os.write(1, b'x' * 100)", "output"),
    "lifts its limits": (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\nexcept Exception: pass\n"
        "while True: pass",
        "timeout",
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", "error"),
    "nests without end": ("(" * 10**5, "error"),
    "recurses without end": ("def f(): f()\nf()", "error"),
    "ends early": ("import os; os._exit(0)", "error"),
    "forges the report": (
        'import os\nfor n in range(3, 30):\n try: os.write(n, b\'{{"verdict": "passed"}}\')\n except OSError: pass',
        "error",
    ),
    "imports what would start something": ("import antigravity", "error"),
    "imports by a computed name": ("__import__('ftp' + 'lib')", "error"),
    "installs packages by an import": ("import ensurepip.__main__", "error"),
}


@pytest.fixture
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where whatever the sandbox makes goes; empty at the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_gets_a_verdict_and_leaves_nothing(name: str, tmp_path: Path, own_temporary_directory: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    mode = secret.stat().st_mode
    program, verdict = HOSTILE[name]
    program = program.format(secret=str(secret), home=str(Path.home()))
    before, children = set(tmp_path.iterdir()), children_of(os.getpid())  # other tests may have left a helper process
    found = run(program, limits=SHORT)
    assert found.verdict == verdict, found
    assert "the secret" not in found.output
    assert set(tmp_path.iterdir()) == before
    assert (secret.read_text(), secret.stat().st_mode) == ("the secret", mode)
    assert children_of(os.getpid()) == children


SYSTEM_CALLS = {
    "open": (2, "{secret!r}.encode(), 0"),
    "openat": (257, "-100, {secret!r}.encode(), 0, 0"),
    "openat2": (437, "-100, {secret!r}.encode(), bytes(24), 24"),
    "socket": (41, "2, 1, 0"),
    "fork": (57, ""),
    "clone": (56, "17, 0, 0, 0, 0"),
    "clone3": (435, "bytes([0] * 32 + [17] + [0] * 31), 64"),
    "execve": (59, "b'/bin/true', 0, 0"),
    "kill": (62, "1, 0"),
    "ptrace": (101, "0, 0, 0, 0"),
    "prctl": (157, "38, 1, 0, 0, 0"),
    "setrlimit": (160, "0, bytes(16)"),
    "prlimit64": (302, "0, 0, 0, 0"),
    "io_uring_setup": (425, "1, bytes(120)"),
    "unshare": (272, "0x10000000"),
    "mkdir": (83, "b'made', 0"),
    "memfd_create": (319, "b'x', 0"),
    "process_vm_readv": (310, "1, 0, 0, 0, 0, 0"),
}


@pytest.mark.parametrize("name", SYSTEM_CALLS)
def test_the_kernel_refuses_system_calls_made_past_python(name: str, tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    number, arguments = SYSTEM_CALLS[name]
    call = f"libc.syscall({number}, {arguments.format(secret=str(secret))})"
    program = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({call}, ctypes.get_errno())"
    assert run(program) == sandbox.Outcome("passed", "", "-1 1\n")


def test_the_other_tables_of_system_calls_are_closed():
    x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 2, b'/', 0)"
    assert run(x32).verdict != "passed"
    # The 32-bit entry: mov eax, 20 (getpid); int 0x80; ret
    code = (
        "import ctypes, mmap\n"
        "page = ctypes.CDLL(None).mmap\n"
        "page.restype = ctypes.c_void_p\n"
        "at = page(None, 4096, 7, 0x22, -1, 0)\n"
        "ctypes.memmove(at, bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]), 8)\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(at)())"
    )
    assert run(code.replace(", mmap", "")) == sandbox.Outcome("error", "ended before its time with status -31", "")


@pytest.mark.parametrize(
    ("program", "tests", "verdict"),
    [
        ("def double(x): return 2 * x", ["assert double(2) == 4", "assert double(-1) == -2"], "passed"),
        ("def double(x): return x * x", ["assert double(2) == 4", "assert double(3) == 6"], "failed"),
        ("def twice(x): return 2 * x", ["assert double(2) == 4"], "error"),
        ("def double(x: return", ["assert double(2) == 4"], "error"),
        ("assert False", ["assert True"], "error"),
        ("import sys; sys.exit(0)", ["assert False"], "error"),
        ("def double(x):\n while True: x += 1", ["assert double(2) == 4"], "timeout"),
        (
            "from collections import Counter\nfrom math import *\nimport json, re, datetime as d\n"
            "def f(x): return Counter(json.loads(x))[1] + floor(pi) + d.datetime.strptime('2001', '%Y').year",
            ["assert f('[1, 1, 2]') == 2006"],
            "passed",
        ),
        ("import time, random\ntime.sleep(1000)\nrandom.random()", ["assert time.monotonic() > 0"], "passed"),
    ],
)
def test_tests_decide(program: str, tests: list[str], verdict: Verdict):
    assert run(program, tests, limits=SHORT).verdict == verdict


def test_a_script_reads_and_prints():
    program = "import sys\nif __name__ == '__main__':\n print(sum(int(line) for line in sys.stdin))\n sys.exit()"
    assert run(program, stdin="1\n2\n39\n") == sandbox.Outcome("passed", "", "42\n")
    assert run("print(input())", stdin="é").output == "é\n"
    assert run("import sys; sys.exit(3)") == sandbox.Outcome("error", "SystemExit: 3", "")


def test_what_is_printed_does_not_depend_on_the_run():
    program = "print({'a', 'b', 'c', 'd'}, hash('a'))"
    assert run(program) == run(program)


def test_several_keep_their_order():
    jobs = [(f"x = {n}", [f"assert x == {wanted}"]) for n, wanted in ((1, 1), (2, 3), (3, 3), (4, 5))]
    assert [one.verdict for one in run_all(jobs)] == ["passed", "failed", "passed", "failed"]


def test_limits_are_checked():
    with pytest.raises(UsageError, match="at least 1 second"):
        Limits(cpu_seconds=0)


def test_where_nothing_isolates_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An inside that seals nothing: the first program shows it."""
    inside = tmp_path / "sealed.py"
    source = sandbox.INSIDE.read_text()
    assert source.count("libc.prctl(22, 2, program, 0, 0)") == 1
    inside.write_text(source.replace("libc.prctl(22, 2, program, 0, 0)", "0"))
    monkeypatch.setattr(sandbox, "INSIDE", inside)
    sandbox.require.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="the kernel let it open"):
            run(f"open({str(tmp_path / 'made')!r}, 'w')")
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        with pytest.raises(SandboxUnavailable, match="x86-64 only"):
            run("pass")
    finally:
        sandbox.require.cache_clear()
    assert not (tmp_path / "made").exists()


LONG = "from teloi.generate.sandbox import *\nrun('while True: pass', limits=Limits(cpu_seconds=300, wall_seconds=300))"


def test_a_program_dies_with_the_process_that_waits_for_it():
    driver = subprocess.Popen([sys.executable, "-c", LONG])
    assert until(lambda: len(children_of(driver.pid)) == 1 and sealed(children_of(driver.pid)[0]))
    (inside,) = children_of(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert until(lambda: not Path(f"/proc/{inside}").exists())


ORDINARY = """
import os, sys
from teloi.generate.sandbox import Limits, run
assert os.getuid() == 65534
print(run("print(open(%r).read())" % sys.argv[1]).verdict, run("import socket; socket.socket()").verdict,
      run("import os\\nwhile True: os.fork()").verdict, run("while True: pass", limits=Limits(cpu_seconds=1)).verdict,
      run("x = [0] * 10**9").verdict, run("open('made', 'w')").verdict,
      run("def f(): return 1", ["assert f() == 1"]).verdict)
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="the other tests run as an ordinary user")
def test_an_ordinary_user_has_the_same_sandbox(tmp_path: Path):
    python = next((p for p in (sys.executable, "/usr/bin/python3") if readable_by_others(Path(p))), None)
    if python is None:
        pytest.skip("no Python here that another user may run")
    own = Path("/tmp") if readable_by_others(Path("/tmp")) else tmp_path
    source = str(Path(sandbox.__file__).parents[2])
    with tempfile.NamedTemporaryFile(dir=own) as secret:
        os.chmod(secret.name, 0o644)
        done = subprocess.run(
            [python, "-B", "-c", ORDINARY, secret.name],
            env={"PYTHONPATH": source},
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
    assert done.stdout.split() == ["forbidden"] * 3 + ["timeout", "memory", "forbidden", "passed"], done.stderr


def readable_by_others(path: Path) -> bool:
    real = path.resolve()
    return all(place.stat().st_mode & 0o001 for place in (real, *real.parents))


def until(condition) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def children_of(pid: int) -> list[int]:
    """Processes that this one has started and that are not gone."""
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def sealed(pid: int) -> bool:
    """Whether a process runs the sandbox's inside, past its start."""
    return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
