"""The real launcher with the documented configuration: two processes, weights in shards, killed and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Answer, Teloi, records, weights

SHARDED = Path(__file__).parents[2] / "docs/accelerate/fsdp2.yaml"
STEPS = ("--model", "scratch:tiny", "--max-steps", 6, "--batch-size", 4, "--learning-rate", "1e-3")


def launch(*words: object, **environment: str) -> Answer:
    command = ["-m", "accelerate.commands.launch", "--config_file", SHARDED, "--num_processes", 2]
    done = subprocess.run(
        [sys.executable, *map(str, [*command, "--main_process_port", 0, "-m", "teloi", *words])],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_a_sharded_run_ends_as_one_process_and_resumes_with_any_number(data: Path, teloi: Teloi, tmp_path: Path):
    def command(out: str) -> tuple[object, ...]:
        return ("train", "dpo", "--data", data, *STEPS, "--output-dir", tmp_path / out)

    assert teloi(*command("one")).status == 0
    # Both processes end without a farewell after their checkpoint of step 3.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nfrom teloi.engine import loop\nsave = loop.Trainer.save\n"
        "def dies(self):\n    save(self)\n    if self.done == 3: os._exit(9)\nloop.Trainer.save = dies\n"
    )
    died = launch(*command("two"), "--save-steps", 3, PYTHONPATH=str(tmp_path))
    assert died.status != 0
    assert not (tmp_path / "two" / "model.safetensors").exists()
    resumed = launch(*command("two"), "--resume")
    assert resumed.status == 0, resumed.err
    assert "resumed after step 3" in resumed.err
    # And what two processes left, one takes up.
    launch(*command("both"), "--save-steps", 3, PYTHONPATH=str(tmp_path))
    assert teloi(*command("both"), "--resume").status == 0
    for out in ("two", "both"):
        assert [record["step"] for record in records(tmp_path / out)] == [1, 2, 3, 4, 5, 6]
        for name, tensor in weights(tmp_path / "one").items():
            # Adam makes steps of up to the learning rate of what the sum of two parts rounds otherwise.
            difference = (weights(tmp_path / out)[name] - tensor).abs()
            assert difference.mean() < 1e-6, name
            torch.testing.assert_close(weights(tmp_path / out)[name], tensor, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_all_processes_stop_together(data: Path, teloi: Teloi, tmp_path: Path):
    flags = (*STEPS, "--data", data, "--stop-when", "tokens > 150")
    assert teloi("train", "sft", *flags, "--output-dir", tmp_path / "one").status == 0
    answer = launch("train", "sft", *flags, "--output-dir", tmp_path / "two")
    assert answer.status == 0, answer.err
    steps = [[record["step"] for record in records(tmp_path / out)] for out in ("one", "two")]
    assert steps[0] == steps[1]
    assert 1 < len(steps[0]) < 6
    assert answer.err.count("stopped because tokens > 150") == 1


def test_deepspeed_is_refused(data: Path, teloi: Teloi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    answer = teloi("train", "dpo", "--data", data, *STEPS, "--output-dir", tmp_path / "out")
    assert "launch with FSDP, which shards the same" in answer.error
