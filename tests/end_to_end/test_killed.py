"""A run that is killed at any moment goes on to the same weights, bit for bit, as if nothing had happened."""

from __future__ import annotations

import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from teloi.engine import checkpoint
from tests.end_to_end.conftest import Teloi, contents, pairs, process, records, same_weights, write_rows

EPOCH = 80
"""Steps in an epoch: enough that a process which watches the run can kill it where it wants to."""
TOTAL = 2 * EPOCH


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    write_rows(folder / "pairs.jsonl", pairs(EPOCH * 2))
    return folder


def words(method: str, out: Path) -> list[str]:
    """Two epochs; kto, to which a pair is two rows, gets as many steps."""
    size = 4 if method == "kto" else 2
    return [
        *("train", method, "--model", "scratch:tiny", "--data", str(out.parent / "pairs.jsonl")),
        *("--output-dir", str(out), "--num-train-epochs", "2", "--batch-size", str(size), "--learning-rate", "1e-3"),
    ]


@pytest.fixture
def whole(work: Path, teloi: Teloi) -> Callable[[str], Path]:
    """The uninterrupted run of a method, trained once."""

    def run(method: str) -> Path:
        out = work / f"{method}-whole"
        if not out.exists():
            assert teloi(*words(method, out)).status == 0
            assert len(records(out)) == TOTAL
        return out

    return run


def steps_done(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def checkpoints(out: Path) -> list[str]:
    folder = out / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


MOMENTS: dict[str, tuple[int, Callable[[Path], bool]]] = {
    # what --save-steps says, and what is seen just before the kill
    "before the first checkpoint": (1000, lambda out: steps_done(out) >= 5),
    "while a checkpoint is written": (1, lambda out: any(name.endswith(".tmp") for name in checkpoints(out))),
    "in the middle": (3, lambda out: steps_done(out) >= EPOCH // 2),
    "in the second epoch": (7, lambda out: steps_done(out) >= EPOCH + EPOCH // 4),
}


def kill(command: list[str], out: Path, now: Callable[[Path], bool]) -> None:
    """Start a run and end it with SIGKILL at that moment."""
    run = process(*command)
    deadline = time.monotonic() + 120
    while not now(out):
        assert run.poll() is None, f"the run ended before it could be killed: {run.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    run.kill()
    run.communicate()
    assert run.returncode == -9


DEATHS = [
    *(pytest.param("dpo", moment, id=f"dpo {moment}") for moment in MOMENTS),
    pytest.param("kto", "in the second epoch", id="kto in the second epoch"),
    *(
        pytest.param("kto", moment, id=f"kto {moment}", marks=pytest.mark.slow)
        for moment in MOMENTS
        if moment != "in the second epoch"
    ),
]


@pytest.mark.parametrize(("method", "moment"), DEATHS)
def test_a_killed_run_ends_in_the_same_bits(method: str, moment: str, work: Path, whole, teloi: Teloi):
    out = work / f"{method} {moment}"
    save_steps, now = MOMENTS[moment]
    kill([*words(method, out), "--save-steps", str(save_steps)], out, now)
    assert not (out / "model.safetensors").exists()
    left = [name for name in checkpoints(out) if not name.startswith(".")]
    if moment == "before the first checkpoint":
        assert left == []
    elif moment == "in the middle":
        assert EPOCH // 2 - 3 <= int(left[-1].removeprefix("step-")) < EPOCH
    elif moment == "in the second epoch":
        assert EPOCH < int(left[-1].removeprefix("step-")) < TOTAL
    answer = teloi(*words(method, out), "--resume")
    assert answer.status == 0
    assert same_weights(out, whole(method))
    assert records(out) == records(whole(method))
    assert [record["step"] for record in records(out)] == list(range(1, TOTAL + 1))
    assert not (out / "checkpoints").exists()
    found, expected = (yaml.safe_load((run / "run.yaml").read_text())["done"] for run in (out, whole(method)))
    for name in ("steps", "rows", "trained_tokens", "scored_tokens", "overlong", "last"):
        assert found[name] == expected[name]
    assert f"{out} is finished: there is nothing to resume" in teloi(*words(method, out), "--resume").error


REWARD = """
import pathlib, time

def vowels(prompts, completions, **columns):
    inside = pathlib.Path(__file__).with_name("inside")
    inside.touch()
    time.sleep(0.02)  # long enough to be seen
    inside.unlink()
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]
"""
"""A reward function that says when it is being called: in the middle of a rollout."""


def test_a_run_killed_inside_a_rollout_ends_in_the_same_bits(tmp_path: Path, teloi: Teloi):
    write_rows(tmp_path / "pairs.jsonl", pairs(24))
    (tmp_path / "reward.py").write_text(REWARD)

    def command(out: Path) -> list[str]:
        return [
            *(*words("grpo", out)[:-4], "--batch-size", "2", "--reward", f"{tmp_path / 'reward.py'}:vowels"),
            *("--k", "3", "--max-new-tokens", "5", "--epochs", "2", "--minibatches", "2", "--learning-rate", "1e-2"),
            *("--save-steps", "4"),
        ]

    out = tmp_path / "out"
    kill(command(out), out, lambda out: steps_done(out) >= 10 and (tmp_path / "inside").exists())
    assert int(checkpoints(out)[-1].removeprefix("step-")) >= 8
    assert teloi(*command(out), "--resume").status == 0
    assert teloi(*command(tmp_path / "whole")).status == 0
    assert same_weights(out, tmp_path / "whole")
    assert records(out) == records(tmp_path / "whole")
    samples = [(run / "samples.jsonl").read_text() for run in (out, tmp_path / "whole")]
    assert samples[0] == samples[1]
    assert len({record["reward"] for record in records(out)}) > 5


@pytest.mark.slow
def test_twenty_kills_at_random_moments_end_in_the_same_bits(work: Path, whole, teloi: Teloi, tmp_path: Path):
    """Wherever it is in the code: reading, computing, logging, writing, or resuming from the kill before."""
    shutil.copy(work / "pairs.jsonl", tmp_path)
    out, draw = tmp_path / "out", random.Random(0)
    for death in range(20):
        last = steps_done(out) + draw.randint(1, 11)
        run = process(*words("dpo", out), "--save-steps", 3, "--resume")
        if death % 4 == 0:
            time.sleep(4 * draw.random())
        else:
            while steps_done(out) < last and run.poll() is None:
                time.sleep(0.001)
            time.sleep(0.02 * draw.random())
        run.kill()
        assert "there is nothing to resume" not in run.communicate()[1]
    assert teloi(*words("dpo", out), "--resume").status == 0
    assert same_weights(out, whole("dpo"))
    assert records(out) == records(whole("dpo"))


class Killed(BaseException):
    """Nothing in the engine may catch it."""


@pytest.fixture
def interrupt(teloi: Teloi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a training that ends without a farewell once it has logged a step."""

    def run(out: Path, step: int, *words: object) -> None:
        def die(self: object, record: object) -> None:
            if steps_done(out) == step:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("teloi.engine.callbacks.Listeners.log", die)
            with pytest.raises(Killed):
                teloi(*words)

    return run


@pytest.fixture
def killed(work: Path, tmp_path: Path, interrupt) -> Path:
    """A dpo run that was interrupted after step 10, in a directory of its own."""
    shutil.copy(work / "pairs.jsonl", tmp_path)
    out = tmp_path / "out"
    interrupt(out, 10, *words("dpo", out), "--save-steps", 4)
    assert checkpoints(out) == ["step-00000008"]
    return out


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("sft", []),
        ("clm", []),
        ("simpo", []),
        ("dpo", ["--lora"]),
        ("dpo", ["--dtype", "bfloat16"]),
        ("dpo", ["--layout", "padded"]),
        ("dpo", ["--gradient-checkpointing"]),
        ("dpo", ["--micro-tokens", "30"]),
        ("dpo", ["--logging-steps", "5"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_way_of_training_resumes(method: str, flags: list[str], work: Path, interrupt, teloi: Teloi, tmp_path):
    def command(out: Path) -> list[str]:
        return [*words(method, out)[:-6], "--max-steps", "12", "--batch-size", "4", *flags]

    shutil.copy(work / "pairs.jsonl", tmp_path)
    interrupt(tmp_path / "out", 1 if "--logging-steps" in flags else 6, *command(tmp_path / "out"), "--save-steps", "4")
    answer = teloi(*command(tmp_path / "out"), "--resume")
    assert "resumed after step 4" in answer.err
    assert teloi(*command(tmp_path / "whole")).status == 0
    assert same_weights(tmp_path / "out", tmp_path / "whole")
    assert records(tmp_path / "out") == records(tmp_path / "whole")


def test_a_full_disk_ends_a_run_in_one_line_and_leaves_its_last_checkpoint(
    work: Path, whole, teloi: Teloi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No file may grow beyond some kilobytes from the third checkpoint on: what a disk without room answers."""
    shutil.copy(work / "pairs.jsonl", tmp_path)
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = checkpoint.save

    def save_where_room_ends(directory: Path, step: int, *rest: Any) -> Path:
        if step == 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        return save(directory, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_where_room_ends)
        try:
            answer = teloi(*words("dpo", out), "--save-steps", 4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer.error.startswith(f"cannot write to {out}: ")
    assert checkpoints(out) == ["step-00000008"]
    assert "resumed after step 8" in teloi(*words("dpo", out), "--resume").err
    assert same_weights(out, whole("dpo"))


def test_what_is_left_of_a_checkpoint_half_written_is_ignored(killed: Path, whole, teloi: Teloi):
    for step in (8, 9, 99):
        half = killed / "checkpoints" / f".step-{step:08d}.tmp"
        half.mkdir()
        (half / "tensors.safetensors").write_bytes(b"half")
    with (killed / "metrics.jsonl").open("a") as log:
        log.write('{"step": 11, "lo')
    answer = teloi(*words("dpo", killed), "--resume")
    assert "resumed after step 8" in answer.err
    assert same_weights(killed, whole("dpo"))
    assert records(killed) == records(whole("dpo"))


def test_a_run_killed_before_it_had_begun_to_write_begins(killed: Path, whole, teloi: Teloi):
    for path in killed.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (killed / ".run.yaml.123.tmp").write_text("method: d")
    assert teloi(*words("dpo", killed), "--resume").status == 0
    assert same_weights(killed, whole("dpo"))


def test_a_run_killed_before_its_card_was_written_gets_it(whole, teloi: Teloi, tmp_path: Path):
    source = whole("dpo")
    out = tmp_path / source.name
    shutil.copytree(source, out)
    command = [word.replace(str(source), str(out)) for word in words("dpo", source)]
    for name in ("README.md", "curves.png", "report.html"):
        (out / name).unlink()
    before = contents(out)
    assert "is finished: there is nothing to resume" in teloi(*command, "--beta", "0.5", "--resume").error
    assert contents(out) == before
    (out / "checkpoints" / "step-00000160").mkdir(parents=True)
    assert "is finished: only its curves and its card were missing" in teloi(*command, "--resume").err
    after = contents(out)
    card = after.pop("README.md")
    assert after.pop("curves.png")
    assert after.pop("report.html")
    assert after == before
    expected = (source / "README.md").read_text().replace(str(source), str(out)).replace(" 1e-3", " 1e-3 --resume")
    assert card is not None
    assert card.decode() == expected
    assert "is finished: there is nothing to resume" in teloi(*command, "--resume").error


def test_saved_settings_resume_where_they_lie(killed: Path, whole, teloi: Teloi):
    assert teloi("train", "--config", killed / "run.yaml", "--resume").status == 0
    assert same_weights(killed, whole("dpo"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--beta", "0.5"], "objective beta was 0.1 and is 0.5"),
        (["--learning-rate", "2e-3"], "train learning_rate was 0.001 and is 0.002"),
        (["--batch-size", "3"], "train batch_size was 2 and is 3"),
        (["--seed", "1"], "train seed was 0 and is 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_changed_settings_do_not_resume(flags: list[str], says: str, killed: Path, teloi: Teloi):
    before = contents(killed)
    error = teloi(*words("dpo", killed), *flags, "--resume").error
    assert f"{killed} holds another run, so it cannot be resumed: {says}" in error
    assert contents(killed) == before


def test_another_method_does_not_resume(killed: Path, teloi: Teloi):
    error = teloi(*words("dpo", killed)[:1], "ipo", *words("dpo", killed)[2:], "--resume").error
    assert "method was 'dpo' and is 'ipo'" in error


@pytest.mark.parametrize("change", ["a reply", "a row"])
def test_changed_data_do_not_resume(change: str, killed: Path, teloi: Teloi):
    rows = [json.loads(line) for line in (killed.parent / "pairs.jsonl").read_text().splitlines()]
    if change == "a reply":
        rows[-1]["chosen"], rows[-1]["rejected"] = rows[-1]["rejected"], rows[-1]["chosen"]
    else:
        rows.pop()
    write_rows(killed.parent / "pairs.jsonl", rows)
    before = contents(killed)
    error = teloi(*words("dpo", killed), "--resume").error
    assert "holds another run, so it cannot be resumed: data " in error
    assert contents(killed) == before


def test_changed_labels_do_not_resume(tmp_path: Path, interrupt, teloi: Teloi):
    """The tokens of the examples stay the same, what they teach does not."""
    rows = [{"prompt": f"{n}?", "completion": "yes", "label": bool(n % 2)} for n in range(8)]
    write_rows(tmp_path / "pairs.jsonl", rows)
    interrupt(tmp_path / "out", 1, *words("kto", tmp_path / "out"))
    rows[0]["label"] = True
    write_rows(tmp_path / "pairs.jsonl", rows)
    assert "cannot be resumed: data hash was" in teloi(*words("kto", tmp_path / "out"), "--resume").error


def test_a_saved_run_repeats_to_the_same_weights(work: Path, whole, teloi: Teloi, tmp_path: Path):
    run = whole("dpo")
    assert teloi("train", "--config", run / "run.yaml", "--output-dir", tmp_path / "again").status == 0
    assert same_weights(run, tmp_path / "again")
    assert records(run) == records(tmp_path / "again")
    other = tmp_path / "other"
    assert (
        teloi("train", "--config", run / "run.yaml", "--output-dir", other, "--seed", 1, "--max-steps", 2).status == 0
    )
    assert len(records(other)) == 2
