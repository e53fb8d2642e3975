"""The interface is frozen: methods of many papers, and of strangers, stand on these names and signatures.

A change here is a change of docs/interface.md and of every method that it concerns.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from teloi.engine.objective import Now, Objective, Phase, Quotas, Term
from teloi.models.roles import Models

METHODS = {
    "after_step": "models, batches, now",
    "build": "models",
    "collate": "examples, now, device",
    "cost": "example",
    "encode": "row, processor",
    "export": "models, path",
    "loss": "models, batch, now",
    "parameter_groups": "models",
    "prepare": "examples, seed",
    "prepare_held_out": "examples, training, seed",
    "quotas": "examples",
    "rollout": "models, examples, now",
    "scorings": "processor",
    "settings": "",
    "shape": "model, example",
}
VARIABLES = {"architecture", "coupled", "defaults", "phase", "reads", "reference_sums", "roles"}


def test_objective() -> None:
    public = {name: value for name, value in vars(Objective).items() if not name.startswith("_")}
    found = {
        name: ", ".join(list(inspect.signature(value).parameters)[1:])
        for name, value in public.items()
        if inspect.isfunction(value)
    }
    assert found == METHODS
    assert {*public, *Objective.__annotations__} - found.keys() == VARIABLES


def test_what_it_is_given_and_gives() -> None:
    assert [f.name for f in fields(Term)] == ["values", "per", "weight", "shared"]
    assert [f.name for f in fields(Now)] == ["step", "total", "seen", "seed", "micro", "rank", "places"]
    assert [f.name for f in fields(Phase)] == ["epochs", "minibatches"]
    assert [f.name for f in fields(Quotas)] == ["strata", "shares"]
    assert list(inspect.signature(Now.rng).parameters) == ["self", "name", "example"]
    assert {"policy", "reference", "teacher", "parts", "processor", "gather", "example"} <= {
        f.name for f in fields(Models)
    }


def test_the_page_names_all_of_it() -> None:
    page = (Path(__file__).parents[2] / "docs/interface.md").read_text()
    for name in {*METHODS, *VARIABLES} - {"settings"}:
        assert f"`{name}" in page, name
