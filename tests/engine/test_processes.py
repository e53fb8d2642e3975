"""Two processes give the gradients of one, for every objective of the catalogue; shares are whole and even."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from teloi.engine.processes import share
from tests.engine.conftest import OBJECTIVES, final_weights, held_out_loss, make, tiny_models, two_steps

ROOT = Path(__file__).parents[2]


def of_two(what: str, path: Path, **environment: str) -> dict[str, torch.Tensor]:
    """Gradients or final weights of every objective, computed by two processes of four examples each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.engine.two_processes", what, str(path)],
        cwd=ROOT,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(path)


@pytest.fixture(scope="module")
def gradients_of_two(tmp_path_factory) -> dict[str, torch.Tensor]:
    return of_two("gradients", tmp_path_factory.mktemp("two") / "gradients.safetensors")


@pytest.fixture(scope="module")
def weights_of_two(tmp_path_factory) -> dict[str, torch.Tensor]:
    """With every weight in two shards, by FSDP2."""
    sharding = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    return of_two("weights", tmp_path_factory.mktemp("two") / "weights.safetensors", **sharding)


@pytest.mark.parametrize("last", [8, 1])
@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda m: m.name)
def test_two_processes_give_the_gradients_of_one(method, last, gradients_of_two) -> None:
    """Also where the last step has one example, so that the other process has none."""
    for i, expected in enumerate(two_steps(make(method), last)):
        torch.testing.assert_close(gradients_of_two[f"{method.name}.{last}.{i}"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda m: m.name)
def test_two_processes_find_the_held_out_loss_of_one(method, gradients_of_two) -> None:
    expected = held_out_loss(make(method))
    torch.testing.assert_close(gradients_of_two[f"{method.name}.held out"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda m: m.name)
def test_two_processes_with_sharded_weights_end_with_the_weights_of_one(method, weights_of_two) -> None:
    start = tiny_models(make(method)).trained
    found = final_weights(make(method))
    moved = zip(found, (p for module in start for p in module.parameters()), strict=True)
    assert any(not torch.equal(after, before) for after, before in moved)
    for i, expected in enumerate(found):
        torch.testing.assert_close(weights_of_two[f"{method.name}.{i}"], expected, atol=1e-6, rtol=1e-5)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=50), st.integers(1, 5))
def test_shares_are_a_partition_of_like_sizes(lengths, world) -> None:
    parts = [share(range(len(lengths)), lengths, rank, world) for rank in range(world)]
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in part) for part in parts]
    assert max(sums) - min(sums) <= max(lengths)
