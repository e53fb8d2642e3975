"""Contrastive training of a sentence encoder against sentence-transformers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Check, Result, Side, Watch, main

ABOUT = """Steps of in-batch contrastive training of all-MiniLM-L6-v2 on job titles and their skills (onet-titles).
sentence-transformers: MultipleNegativesRankingLoss, our allocator, in bfloat16 both autocast and bfloat16 parameters.
Neither side recomputes anything."""

TARGETS = {"speed": 1.3}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=64, help="pairs in a step")
    parser.add_argument("--steps", type=int, default=3, help="steps measured, after one that is not")
    parser.add_argument("--model", default="all-minilm-l6-v2", help="directory or name of an encoder")


def given(options: Namespace) -> dict[str, Any]:
    """What every side gets."""
    if options.tiny:
        rows = [{"anchor": f"it was {i}", "positive": f"a {i} day"} for i in range(8)]
    else:
        rows = data.titles(options.rows)
    return {
        "rows": rows,
        "model": data.model(options, "encoder"),
        "device": options.device,
        "steps": options.steps,
    }


def cases(options: Namespace) -> list[Case]:
    found = []
    for dtype in ("float32", "bfloat16"):
        settings = {**given(options), "dtype": dtype}
        sides = [Side("teloi", "teloi", settings)]
        if dtype == "bfloat16":
            sides.append(Side("sentence-transformers, autocast", "peer", {**settings, "weights": "float32"}))
        name = "sentence-transformers" + (", bfloat16 weights" if dtype == "bfloat16" else "")
        sides.append(Side(name, "peer", {**settings, "weights": dtype}))
        found.append(Case(dtype, sides, TARGETS))
    return found


def checks(options: Namespace) -> list[Check]:
    settings = {**given(options), "dtype": "float32"}
    sides = [
        Side("teloi", "our_numbers", settings),
        Side("sentence-transformers", "peer_numbers", {**settings, "weights": "float32"}),
    ]
    return [Check("loss, float32", sides)]


def ours(rows: list[Any], model: str, device: str, steps: int, dtype: str) -> Any:
    from benchmarks.sides import trainer
    from teloi.methods.represent.contrastive import InBatch

    more = {"max_length": 256, "overlong": "truncate", "micro_tokens": 2**20}  # one part: nothing is recomputed
    return trainer(InBatch(), rows, steps + 1, model=model, dtype=dtype, **more)


def teloi(**settings: Any) -> Result:
    """All steps but the first."""
    made, watch = ours(**settings), Watch()
    for _ in made.run():
        watch()
    return watch.result(len(settings["rows"]) * settings["steps"])


def our_numbers(**settings: Any) -> Result:
    from teloi.engine.objective import Now
    from teloi.models.roles import evaluation

    made = ours(**settings)
    batch = made.objective.collate(made.examples, Now(0, 1), made.models.device)
    with evaluation(made.models.policy.model):
        return {"numbers": [float(made.objective.loss(made.models, batch, Now(0, 1))["contrast"].values.mean())]}


def theirs(
    rows: list[Any], model: str, device: str, steps: int, dtype: str, weights: str, marks: Any = None
) -> tuple[Any, Any]:
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from benchmarks.sides import Marks
    from teloi.engine.setup import keep_memory
    from teloi.models.load import resolve

    keep_memory()  # a quarter faster for them too
    # Built of its modules: the embedded directory is a plain checkpoint.
    reader = Transformer(str(resolve(model)), max_seq_length=256, model_kwargs={"dtype": getattr(torch, weights)})
    encoder = SentenceTransformer(
        modules=[reader, Pooling(reader.get_embedding_dimension(), pooling_mode="mean")], device=device
    )
    loss = MultipleNegativesRankingLoss(encoder, scale=20.0)
    arguments = SentenceTransformerTrainingArguments(
        output_dir="unused",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=dtype == "bfloat16" and weights == "float32",
        lr_scheduler_type="constant",
        learning_rate=1e-5,
        max_steps=steps + 1,
        per_device_train_batch_size=len(rows),
    )
    made = SentenceTransformerTrainer(
        model=encoder,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        loss=loss,
        callbacks=[] if marks is None else [Marks(marks, begins=False)],
    )
    return made, loss


def peer(**settings: Any) -> Result:
    """All steps but the first."""
    watch = Watch()
    theirs(**settings, marks=watch)[0].train()
    return watch.result(len(settings["rows"]) * settings["steps"])


def peer_numbers(**settings: Any) -> Result:
    import torch

    made, loss = theirs(**settings)
    features, _ = made.collect_features(made.data_collator(list(made.train_dataset)))
    made.model.eval()
    with torch.no_grad():
        return {"numbers": [float(loss(list(features), torch.empty(0)))]}


BENCHMARK = Benchmark("embedding_step", ABOUT, "pairs", cases, checks, arguments)

if __name__ == "__main__":
    main(BENCHMARK)
