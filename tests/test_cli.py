from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import yaml

from teloi.catalogue import CLAIMS, METHODS, PAPERS, Stage
from teloi.claims.claim import judge
from teloi.claims.results import measured
from teloi.claims.running import judged, load, values
from teloi.cli import VERBS, main
from teloi.cli.comparing import parse_comparison
from teloi.cli.options import attribute_docs
from teloi.cli.showing import EXAMPLES
from teloi.cli.training import parse_run
from teloi.data.formats import FORMATS
from teloi.engine.config import TrainConfig
from teloi.errors import UsageError
from teloi.methods.prefer.dpo import DPO

ROOT = Path(__file__).parents[1]


class Command:
    """Runs the command in this process: status, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        try:
            status = main(words)
        except SystemExit as end:  # how tyro leaves after --help and after a flag that does not parse
            status = int(end.code or 0)
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture
def teloi(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("COLUMNS", "100")
    return Command(capsys)


# -- quick and light


HEAVY = "{'torch', 'transformers', 'datasets', 'pandas', 'accelerate', 'typeguard'}"
LIGHT = [
    [],
    ["--help"],
    ["list"],
    ["list", "--json"],
    ["show", "dpo"],
    ["train", "--help"],
    ["train", "dpo", "--help"],
    ["compare", "--help"],
    ["demo", "--help"],
    ["claim", "--help"],
    ["claim", "--list"],
]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_looking_around_imports_nothing_heavy(words: list[str]):
    code = (
        "import sys\nfrom teloi.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: assert not end.code\n"
        f"print(*{HEAVY} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert done.stderr.split() == []


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m teloi list | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- help


def test_help_teaches_each_verb(teloi: Command):
    status, out, _ = teloi("--help")
    assert status == 0
    assert all(f"teloi {verb}" in out for verb in VERBS)
    assert teloi()[1] == out


def test_version(teloi: Command):
    assert teloi("--version")[1].startswith("teloi ")


def test_every_setting_has_a_help_text(teloi: Command):
    _, out, _ = teloi("train", "dpo", "--help")
    flat = " ".join(out.replace("│", " ").split())
    for owner in (DPO, TrainConfig):
        for name, text in attribute_docs(owner).items():
            assert f"--{name.replace('_', '-')}" in flat
            assert text in flat
    assert {f.name for f in fields(TrainConfig)} == attribute_docs(TrainConfig).keys()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_hyperparameter_is_explained(method):
    assert {f.name for f in fields(method.load())} <= attribute_docs(method.load()).keys()


# -- list and show


def test_list_filters(teloi: Command):
    _, out, _ = teloi("list", "--stage", "finetune")
    assert "sft" in out
    assert "dpo" not in out


@pytest.mark.parametrize("stage", get_args(Stage))
def test_list_of_a_stage_names_its_methods_alone(teloi: Command, stage: str):
    status, out, _ = teloi("list", "--stage", stage)
    named = {line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2:3].strip()}
    assert status == 0
    assert named == {method.name for method in METHODS if method.stage == stage}
    assert named or "no method of that stage" in out


def test_list_json(teloi: Command):
    records = json.loads(teloi("list", "--json")[1])
    assert [r["name"] for r in records] == [m.name for m in METHODS]
    assert all({"name", "kind", "stage", "reads", "paper"} <= r.keys() for r in records)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_show_tells_what_a_user_asks(teloi: Command, method):
    status, out, _ = teloi("show", method.name)
    assert status == 0
    flat = " ".join(out.split())
    assert method.about in flat
    assert method.origin.title in flat
    assert f"teloi {'generate' if method.kind == 'decoder' else 'train'} {method.name}" in flat
    assert method.kind != "objective" or "Loss" in flat
    assert "When Use it " in flat
    assert " Not " in flat
    assert json.dumps(EXAMPLES[method.reads]) in flat
    for field in fields(method.load()):
        assert f"--{field.name.replace('_', '-')}" in flat


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_rows_are_rows_of_their_format(name: str):
    FORMATS[name].parse(EXAMPLES[name])


# -- mistakes: one line, status 2, no traceback


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "there is no verb 'trian'; did you mean train?"),
        (["show", "dppo"], "there is no method 'dppo'; did you mean ppo or dpo"),
        (["train", "dppo"], "there is no method 'dppo'; did you mean ppo or dpo"),
        (["train"], "which method? It stands first"),
        (["train", "--data", "x.jsonl", "dpo"], "which method? It stands first"),
        (["train", "mine.py"], "names no class; write mine.py:MyObjective"),
        (["train", "mine.py:Mine"], "there is no file mine.py"),
        (["train", "dpo", "--beta", "-1"], "beta must be above 0, not -1.0"),
        (["train", "dpo", "--batch-size", "0"], "batch_size must be at least 1, not 0"),
        (["train", "--config", "none.yaml"], "cannot read none.yaml: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_line(teloi: Command, words: list[str], says: str):
    status, out, err = teloi(*words)
    assert (status, out) == (2, "")
    assert err.startswith("teloi: error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "dpo", "--bta", "1"], "--beta"),
        (["train", "dpo", "--beta", "much"], "much"),
        (["train", "dpo", "--overlong", "keep"], "truncate"),
        (["list", "--stage", "prefre"], "prefer"),
    ],
)
def test_flags_that_do_not_parse(teloi: Command, words: list[str], says: str):
    status, out, err = teloi(*words)
    assert (status, out) == (2, "")
    assert says in err


def test_interrupt_says_how_to_go_on(teloi: Command, monkeypatch: pytest.MonkeyPatch):
    def interrupted(words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("teloi.cli.training.train", interrupted)
    status, _, err = teloi("train", "dpo")
    assert status == 130
    assert "--resume" in err


def test_a_bug_keeps_its_traceback(teloi: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("teloi.cli.training.train", lambda words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        teloi("train", "dpo")


# -- what `train` is given


def test_flags_reach_objective_and_settings():
    name, objective, config = parse_run(
        ["exo_pair", "--beta", "0.3", "--learning_rate", "1e-4", "--data", "p.jsonl", "--lora"]
    )
    assert name == "exo-pair"
    assert objective.settings()["beta"] == 0.3
    assert (config.learning_rate, config.data, config.lora) == (1e-4, "p.jsonl", True)


def test_method_has_defaults_of_its_own():
    _, objective, config = parse_run(["dpo"])
    assert objective == DPO()
    assert config.learning_rate == DPO.defaults["learning_rate"] != TrainConfig.learning_rate


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = {
        "method": "dpo",
        "objective": {"beta": 0.3},
        "train": {"learning_rate": 3e-6, "lora": True, "data": "p.jsonl"},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def test_saved_run_is_repeated(saved: Path):
    name, objective, config = parse_run(["--config", str(saved)])
    assert (name, objective) == ("dpo", DPO(beta=0.3))
    assert (config.learning_rate, config.lora, config.data, config.output_dir) == (
        3e-6,
        True,
        "p.jsonl",
        None,
    )


def test_flags_override_a_saved_run(saved: Path):
    _, objective, config = parse_run(
        ["dpo", f"--config={saved}", "--beta", "0.1", "--learning-rate", "1e-5", "--no-lora"]
    )
    assert objective == DPO(beta=0.1)
    assert (config.learning_rate, config.lora, config.data) == (1e-5, False, "p.jsonl")


def test_another_method_takes_over_the_settings_of_a_saved_run(saved: Path):
    name, objective, config = parse_run(["ipo", "--config", str(saved)])
    assert name == "ipo"
    assert objective.settings()["beta"] == 0.1
    assert config.learning_rate == 3e-6


def test_resume_goes_on_where_the_saved_run_lies(saved: Path):
    assert parse_run(["--config", str(saved), "--resume"])[2].output_dir == saved.parent


@pytest.mark.parametrize("text", ["a: [", "3", "method: dpo"])
def test_file_that_is_no_saved_run(tmp_path: Path, text: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"x\.yaml is no "):
        parse_run(["--config", str(path)])


# -- what `compare` is given


def test_arms_carry_settings_of_their_own():
    arms, config = parse_comparison(
        ["sft", "dpo:beta=0.3,learning-rate=1e-6,lora=true", "--seeds", "5", "--lora-r", "4"]
    )
    assert [arm.name for arm in arms] == ["sft", "dpo:beta=0.3,learning_rate=1e-6,lora=true"]
    assert arms[1].objective == DPO(beta=0.3)
    assert arms[1].settings == {"learning_rate": 1e-6, "lora": True}
    assert (config.seeds, config.train.lora_r) == (5, 4)


def test_settings_for_all_arms_win_over_a_methods_own_defaults():
    # also where the value is that of TrainConfig, which alone could not be told from "not given"
    arms, _ = parse_comparison(["dpo", "dpo:learning_rate=1e-6", "--learning-rate", str(TrainConfig.learning_rate)])
    assert [arm.settings["learning_rate"] for arm in arms] == [TrainConfig.learning_rate, 1e-6]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which methods? They stand first"),
        (["--data", "x.jsonl", "dpo"], None),
        (["dpo", "dppo"], "there is no method 'dppo'"),
        (["dpo:bta=3"], "dpo has no setting 'bta' of its own; did you mean beta"),
        (["dpo:beta"], "write settings as dpo:name=value"),
        (["dpo:beta=much"], "dpo:beta=much: beta cannot be 'much' (float)"),
        (["dpo:data=x.jsonl"], "dpo has no setting 'data' of its own"),
        (["dpo:batch_size=0"], "batch_size must be at least 1, not 0"),
        (["mine.py:Mine:beta=3"], "there is no file mine.py"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arms_that_do_not_fit(teloi: Command, words: list[str], says: str | None):
    status, out, err = teloi("compare", *words)
    assert (status, out) == (2, "")
    assert says is None or says in err
    assert "Traceback" not in err


# -- claims


def test_claims_are_listed_with_their_papers(teloi: Command):
    status, out, _ = teloi("claim", "--list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(CLAIMS)
    assert all(PAPERS[slug].title in out for slug in CLAIMS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["claim"], "which claim? It stands first"),
        (["claim", "pedagogi"], "there is no claim 'pedagogi'; did you mean pedagogy?"),
        (["claim", "pedagogy", "--jobs", "0"], "jobs must be at least 1, not 0"),
        (["claim", "pedagogy", "--seeds", "1,1"], "seeds are different numbers"),
        (["claim", "pedagogy", "--seeds", "one"], "seeds are numbers with commas between them, not 'one'"),
        (["claim", "--readme", "none.md"], "there is no file none.md"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_claims_that_cannot_be_run(teloi: Command, words: list[str], says: str):
    status, out, err = teloi(*words)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_claim_runs_and_is_shown(teloi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CLAIMS, "pedagogy", "tests.claims.tiny")
    status, out, _ = teloi("claim", "pedagogy", "--quick")
    assert status == 0
    assert "tiny: a trial, not for the record: no verdict" in out
    assert "new against old, share: " in out
    assert (tmp_path / "runs/claims/tiny-quick.png").stat().st_size > 5_000
    result = json.loads((tmp_path / "runs/claims/tiny-quick.json").read_text())
    assert result["command"] == "teloi claim pedagogy --quick"

    shown = {"pedagogy": {**result, "verdict": "inconclusive"}}
    monkeypatch.setattr("teloi.cli.showing.measured", lambda: shown)
    sft, kto = " ".join(teloi("show", "sft")[1].split()), teloi("show", "kto")[1]
    assert "New is better than old. Inconclusive; 0 of 1 hold, 1 open." in sft
    assert "Pedagogical Alignment" in sft
    assert "Measured" not in kto


def test_a_readme_gets_its_table(teloi: Command, tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    assert "no place for the table" in teloi("claim", "--readme", str(readme))[2]
    readme.write_text((ROOT / "README.md").read_text())
    assert teloi("claim", "--readme", str(readme))[0] == 0
    assert readme.read_text() == (ROOT / "README.md").read_text(), "run `teloi claim --readme README.md`"


# What the repository says of itself


@pytest.mark.parametrize("slug", measured())
def test_a_committed_result_is_its_claims(slug: str):
    result = measured()[slug]
    claim = load(CLAIMS[slug])
    assert result["claim"] == claim.slug == slug
    assert result["seeds"] == list(claim.seeds), "seeds are fixed beforehand"
    assert [arm["name"] for arm in result["arms"]] == [arm.name for arm in claim.arms]
    again = judge(claim, values(result["arms"]), result["seeds"])
    assert again.verdict == result["verdict"]
    assert json.loads(json.dumps(judged(again)["expectations"])) == [
        {**one, "estimate": one["estimate"] and {n: pytest.approx(v) for n, v in one["estimate"].items()}}
        for one in result["expectations"]
    ]
    assert (ROOT / "docs" / "claims" / f"{slug}.png").is_file()


@pytest.mark.parametrize("slug", CLAIMS)
def test_every_claim_has_a_paper_and_methods(slug: str):
    claim = load(CLAIMS[slug])
    assert claim.slug == slug
    assert slug in PAPERS
    assert set(claim.methods) <= {method.name for method in METHODS}
