"""The table of contents: every paper and every method, one line each.

Nothing here imports a method: an entry names its class as "module:Class", so that listing costs no import of
torch, and a test resolves each. `resolve` turns a name, or a user's own `file.py:Class`, into the class.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from teloi.errors import UsageError
from teloi.names import hint, import_file

if TYPE_CHECKING:
    from types import ModuleType

Kind = Literal["objective", "recipe", "data", "decoder", "evaluation", "planner"]
Stage = Literal[
    "pretrain", "finetune", "prefer", "reinforce", "represent",
    "decode", "synthesize", "select", "assess", "forecast",
]  # fmt: skip


@dataclass(frozen=True)
class Paper:
    """A publication: `slug` is its name here, `arxiv` its number, `url` its address where it has no number."""

    slug: str
    authors: str
    year: int
    title: str
    arxiv: str = ""
    url: str = ""

    @property
    def link(self) -> str:
        """Where to read it."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    @property
    def short(self) -> str:
        """The citation that fits in a table: "Rafailov et al., 2023"."""
        return f"{self.authors}, {self.year}"

    def __str__(self) -> str:
        return f"{self.short}. {self.title}. {self.link}"


@dataclass(frozen=True)
class Method:
    """A part that a user calls by name.

    `paper` is the paper that brings it here, `source` the one that introduced it (the same unless given); `reads`
    is the data format by its name; `entry` is "module:Class"; `also` holds names under which it is known elsewhere.
    """

    name: str
    about: str
    reads: str
    entry: str
    paper: str
    source: str = ""
    also: tuple[str, ...] = ()
    kind: Kind = "objective"

    @property
    def stage(self) -> Stage:
        """The stage of training it belongs to: the wing that its module stands in."""
        return self.entry.split(".")[2]  # type: ignore[return-value]  # a test holds the entries to the stages

    @property
    def origin(self) -> Paper:
        """The paper that introduced the method."""
        return PAPERS[self.source or self.paper]

    def load(self) -> type[Any]:
        """The class behind the entry: a subclass of what the engine has for its kind, `Objective` or `Recipe`."""
        module, _, name = self.entry.partition(":")
        found: type[Any] = getattr(importlib.import_module(module), name)
        return found


def _by_slug(*papers: Paper) -> dict[str, Paper]:
    return {paper.slug: paper for paper in papers}


# fmt: off
PAPERS = _by_slug(
    Paper("dpo-ppo", "Ivison et al.", 2024, "Unpacking DPO and PPO: Disentangling Best Practices for Learning from Preference Feedback", "2406.09279"),
    Paper("pedagogy", "Sonkar et al.", 2024, "Pedagogical Alignment of Large Language Models", "2402.05000"),
    Paper("summarize-hf", "Stiennon et al.", 2020, "Learning to summarize from human feedback", "2009.01325"),
    Paper("tulu3", "Lambert et al.", 2024, "Tülu 3: Pushing Frontiers in Open Language Model Post-Training", "2411.15124"),
    Paper("nashmd", "Munos et al.", 2024, "Nash Learning from Human Feedback", "2312.00886"),
    Paper("structural-ssl", "Di Liello", 2023, "Structural Self-Supervised Objectives for Transformers", "2309.08272"),
    Paper("fgrlhf", "Wu et al.", 2023, "Fine-Grained Human Feedback Gives Better Rewards for Language Model Training", "2306.01693"),
    Paper("marlhf", "Chai et al.", 2025, "MA-RLHF: Reinforcement Learning from Human Feedback with Macro Actions", "2410.02743"),
    Paper("vacancysbert", "Bocharova et al.", 2023, "VacancySBERT: the approach for representation of titles and skills for semantic similarity search in the recruitment domain", "2307.16638"),
    Paper("grif", "Myers et al.", 2023, "Goal Representations for Instruction Following: A Semi-Supervised Language Interface to Control", "2307.00117"),
    Paper("vega", "Zhong et al.", 2023, "Bag of Tricks for Effective Language Model Pretraining and Downstream Adaptation: A Case Study on GLUE", "2302.09268"),
    Paper("codet5p", "Wang et al.", 2023, "CodeT5+: Open Code Large Language Models for Code Understanding and Generation", "2305.07922"),
    Paper("e2s2", "Zhong et al.", 2023, "E2S2: Encoding-Enhanced Sequence-to-Sequence Pretraining for Language Understanding and Generation", "2205.14912"),
    Paper("ul2", "Tay et al.", 2023, "UL2: Unifying Language Learning Paradigms", "2205.05131"),
    Paper("salt", "Rawat et al.", 2024, "A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs", "2410.18779"),
    Paper("phf", "Korbak et al.", 2023, "Pretraining Language Models with Human Preferences", "2302.08582"),
    Paper("babylm", "Hu et al.", 2024, "Findings of the Second BabyLM Challenge: Sample-Efficient Pretraining on Developmentally Plausible Corpora", "2412.05149"),
    # where the methods come from that these papers compare
    Paper("mnr", "Henderson et al.", 2017, "Efficient Natural Language Response Suggestion for Smart Reply", "1705.00652"),
    Paper("gpt", "Radford et al.", 2018, "Improving Language Understanding by Generative Pre-Training", url="https://openai.com/index/language-unsupervised/"),
    Paper("bert", "Devlin et al.", 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", "1810.04805"),
    Paper("simcse", "Gao et al.", 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", "2104.08821"),
    Paper("electra", "Clark et al.", 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", "2003.10555"),
    Paper("bart", "Lewis et al.", 2020, "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and Comprehension", "1910.13461"),
    Paper("t5", "Raffel et al.", 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", "1910.10683"),
    Paper("as2", "Di Liello et al.", 2022, "Pre-training Transformer Models with Sentence-Level Objectives for Answer Sentence Selection", "2205.10455"),
    Paper("rwr", "Peters and Schaal", 2007, "Reinforcement Learning by Reward-weighted Regression for Operational Space Control", url="https://doi.org/10.1145/1273496.1273590"),
    Paper("awr", "Peng et al.", 2019, "Advantage-Weighted Regression: Simple and Scalable Off-Policy Reinforcement Learning", "1910.00177"),
    Paper("unlikelihood", "Welleck et al.", 2020, "Neural Text Generation with Unlikelihood Training", "1908.04319"),
    Paper("rts", "Di Liello et al.", 2022, "Effective Pre-Training Objectives for Transformer-based Autoencoders", "2210.13536"),
    Paper("dpo", "Rafailov et al.", 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", "2305.18290"),
    Paper("slic", "Zhao et al.", 2023, "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", "2305.10425"),
    Paper("ipo", "Azar et al.", 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences", "2310.12036"),
    Paper("cpo", "Xu et al.", 2024, "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation", "2401.08417"),
    Paper("kto", "Ethayarajh et al.", 2024, "KTO: Model Alignment as Prospect Theoretic Optimization", "2402.01306"),
    Paper("exo", "Ji et al.", 2024, "Towards Efficient Exact Optimization of Language Model Alignment", "2402.00856"),
    Paper("nca", "Chen et al.", 2024, "Noise Contrastive Alignment of Language Models with Explicit Rewards", "2402.05369"),
    Paper("rdpo", "Chowdhury et al.", 2024, "Provably Robust DPO: Aligning Language Models with Noisy Feedback", "2403.00409"),
    Paper("orpo", "Hong et al.", 2024, "ORPO: Monolithic Preference Optimization without Reference Model", "2403.07691"),
    Paper("bco", "Jung et al.", 2024, "Binary Classifier Optimization for Large Language Model Alignment", "2404.04656"),
    Paper("sppo", "Wu et al.", 2024, "Self-Play Preference Optimization for Language Model Alignment", "2405.00675"),
    Paper("ppo", "Schulman et al.", 2017, "Proximal Policy Optimization Algorithms", "1707.06347"),
    Paper("grpo", "Shao et al.", 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models", "2402.03300"),
    Paper("rloo", "Ahmadian et al.", 2024, "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in LLMs", "2402.14740"),
    Paper("simpo", "Meng et al.", 2024, "SimPO: Simple Preference Optimization with a Reference-Free Reward", "2405.14734"),
    Paper("aot", "Melnyk et al.", 2024, "Distributional Preference Alignment of LLMs via Optimal Transport", "2406.05882"),
    Paper("discopop", "Lu et al.", 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models", "2406.08414"),
    Paper("apo", "D'Oosterlinck et al.", 2024, "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment", "2408.06266"),
    Paper("gpt-bert", "Charpentier & Samuel", 2024, "GPT or BERT: why not both?", "2410.24159"),
)

# paper -> the file of its claim, which names it CLAIM
CLAIMS: dict[str, str] = {
    "structural-ssl": "teloi.claims.structural_ssl",
    "tulu3": "teloi.claims.tulu3",
    "summarize-hf": "teloi.claims.summarize_hf",
    "dpo-ppo": "teloi.claims.dpo_ppo",
    "pedagogy": "teloi.claims.pedagogy",
    "fgrlhf": "teloi.claims.fgrlhf",
    "marlhf": "teloi.claims.marlhf",
    "vacancysbert": "teloi.claims.vacancysbert",
    "grif": "teloi.claims.grif",
    "ul2": "teloi.claims.ul2",
    "codet5p": "teloi.claims.codet5p",
    "vega": "teloi.claims.vega",
    "e2s2": "teloi.claims.e2s2",
    "babylm": "teloi.claims.babylm",
    "phf": "teloi.claims.phf",
    "salt": "teloi.claims.salt",
    "nashmd": "teloi.claims.nashmd",
}

METHODS: tuple[Method, ...] = (
    Method("clm", "next-token prediction on plain text, from scratch or continued", "language-modeling", "teloi.methods.pretrain.clm:CLM", "gpt"),
    Method("gpt-bert", "one decoder learns to continue texts and, read in both directions, to fill masks", "language-modeling", "teloi.methods.pretrain.gpt_bert:GPTBERT", "babylm", "gpt-bert", ("mntp", "masked-next-token-prediction")),
    Method("salt", "clm that first distils from a smaller model, on texts this can learn if asked", "language-modeling", "teloi.methods.pretrain.salt:SALT", "salt", also=("early-distillation",)),
    # on documents whose segments have scores
    Method("conditional-lm", "a control token says of every segment whether people like it; sample behind the good one", "scored-segments", "teloi.methods.pretrain.human_preferences:ConditionalLM", "phf", also=("conditional-training",)),
    Method("filtered-lm", "next-token prediction on the documents that score well enough", "scored-segments", "teloi.methods.pretrain.human_preferences:FilteredLM", "phf", also=("filtering",)),
    Method("unlikelihood", "raise the tokens of liked segments, lower those of the others", "scored-segments", "teloi.methods.pretrain.weighted_by_score:Unlikelihood", "phf", "unlikelihood"),
    Method("awr", "weigh every token by how much better its segment is than a learned value foresaw", "scored-segments", "teloi.methods.pretrain.weighted_by_score:AWR", "phf", "awr", ("advantage-weighted-regression",)),
    Method("rwr", "weigh every token by the exponential of its segment's reward", "scored-segments", "teloi.methods.pretrain.weighted_by_score:RWR", "phf", "rwr", ("reward-weighted-regression",)),
    # into a decoder
    Method("span-corruption", "fill the gaps of a text: masked spans in, their tokens out (T5)", "language-modeling", "teloi.methods.pretrain.denoise:SpanCorruption", "ul2", "t5", ("t5",)),
    Method("prefix-lm", "the tail of a text given its head, which is read in both directions", "language-modeling", "teloi.methods.pretrain.denoise:PrefixLM", "ul2", "t5"),
    Method("infilling", "write a whole text of which spans are masked (BART)", "language-modeling", "teloi.methods.pretrain.infill:Infilling", "e2s2", "bart", ("text-infilling", "bart")),
    Method("e2s2", "infilling whose encoder also finds shuffled and replaced tokens, and tells texts apart", "language-modeling", "teloi.methods.pretrain.infill:E2S2", "e2s2"),
    Method("ul2", "a mixture of gap filling and continuing, each with its mode token", "language-modeling", "teloi.methods.pretrain.denoise:UL2", "ul2"),
    Method("codet5p-unimodal", "fill gaps, continue a prefix and write without one, for an encoder-decoder whose parts are used alone", "language-modeling", "teloi.methods.pretrain.unimodal:CodeT5PUnimodal", "codet5p", also=("codet5p-stage-1",)),
    Method("codet5p-bimodal", "embed, match and translate pairs (a text and its code) in one encoder-decoder, with a momentum queue", "pair", "teloi.methods.pretrain.bimodal:CodeT5PBimodal", "codet5p", also=("codet5p-stage-2", "text-code-contrastive")),
    # in an encoder
    Method("mlm", "recover masked tokens from both sides (BERT)", "language-modeling", "teloi.methods.pretrain.substitution:MLM", "structural-ssl", "bert"),
    Method("slm", "recover tokens that were swapped for random ones: MLM without a mask token", "language-modeling", "teloi.methods.pretrain.substitution:SLM", "structural-ssl", "rts"),
    Method("rts", "detect which tokens were replaced by random ones: no vocabulary head, so cheaper", "language-modeling", "teloi.methods.pretrain.substitution:RTS", "structural-ssl", "rts"),
    Method("c-rts", "RTS whose replacements come from the clusters that fool the detector", "language-modeling", "teloi.methods.pretrain.substitution:CRTS", "structural-ssl", "rts"),
    Method("rtd", "find which tokens a small generator got wrong (ELECTRA, DeBERTaV3)", "language-modeling", "teloi.methods.pretrain.detect:RTD", "vega", "electra", ("electra", "replaced-token-detection")),
    Method("vega", "rtd, and sentence vectors by two passes with different dropout (SimCSE)", "language-modeling", "teloi.methods.pretrain.detect:Vega", "vega"),
    Method("ssp", "are two sentences from one paragraph? A cross-encoder learns it from documents", "document", "teloi.methods.pretrain.structure:SSP", "structural-ssl", "as2"),
    Method("sp", "is a sentence from this paragraph? Like ssp, for longer second texts", "document", "teloi.methods.pretrain.structure:SP", "structural-ssl", "as2"),
    Method("psd", "are two paragraphs from one document? Like ssp, for two long texts", "document", "teloi.methods.pretrain.structure:PSD", "structural-ssl", "as2"),
    Method("classify", "label texts or pairs of texts: an encoder with a new head", "labelled-text", "teloi.methods.finetune.classify:Classify", "structural-ssl", "bert", ("sequence-classification", "cross-encoder")),
    Method("vega-finetune", "classify with adversarial embeddings (SiFT) and labels tempered by earlier predictions", "labelled-text", "teloi.methods.finetune.vega:VegaFinetune", "vega", also=("sift",)),
    Method("sft", "imitate the completions: next-token prediction on the answer alone", "prompt-completion", "teloi.methods.finetune.sft:SFT", "tulu3"),
    # against a frozen reference model
    Method("dpo", "raise chosen above rejected, logistic loss on the difference of log-ratios", "preference", "teloi.methods.prefer.dpo:DPO", "dpo-ppo", "dpo", ("sigmoid",)),
    Method("dpo-norm", "DPO on log-ratios per token, so that length does not pay", "preference", "teloi.methods.prefer.dpo:DPONorm", "tulu3", also=("sigmoid-norm",)),
    Method("ipo", "pull the difference of log-ratios per token to a fixed gap, without overshooting", "preference", "teloi.methods.prefer.dpo:IPO", "dpo-ppo", "ipo"),
    Method("ipo-sum", "IPO with summed log-ratios, as its paper writes it", "preference", "teloi.methods.prefer.dpo:IPOSum", "dpo-ppo", "ipo"),
    Method("hinge", "DPO with a margin: pairs that are far enough apart no longer train", "preference", "teloi.methods.prefer.dpo:Hinge", "dpo-ppo", "slic"),
    Method("robust", "DPO made unbiased for labels that are flipped at a known rate", "preference", "teloi.methods.prefer.dpo:Robust", "dpo-ppo", "rdpo"),
    Method("exo-pair", "match the preference distribution by reverse KL", "preference", "teloi.methods.prefer.dpo:EXOPair", "dpo-ppo", "exo"),
    Method("nca-pair", "DPO that also keeps the likelihood of the chosen answer from falling", "preference", "teloi.methods.prefer.dpo:NCAPair", "dpo-ppo", "nca"),
    Method("bco-pair", "a binary classifier of chosen and rejected, each on its own", "preference", "teloi.methods.prefer.dpo:BCOPair", "dpo-ppo", "bco"),
    Method("sppo-hard", "regress both log-ratios to their win rates: +1/2 and -1/2", "preference", "teloi.methods.prefer.dpo:SPPOHard", "dpo-ppo", "sppo"),
    Method("aot", "order whole distributions of margins, not single pairs", "preference", "teloi.methods.prefer.dpo:AOT", "dpo-ppo", "aot"),
    Method("aot-unpaired", "order the distribution of chosen log-ratios above that of rejected ones", "preference", "teloi.methods.prefer.dpo:AOTUnpaired", "dpo-ppo", "aot"),
    Method("apo-zero", "raise chosen and lower rejected, each by itself", "preference", "teloi.methods.prefer.dpo:APOZero", "dpo-ppo", "apo"),
    Method("apo-down", "lower both, rejected more: for a model better than its chosen answers", "preference", "teloi.methods.prefer.dpo:APODown", "dpo-ppo", "apo"),
    Method("discopop", "a blend of logistic and exponential loss that a language model discovered", "preference", "teloi.methods.prefer.dpo:DiscoPOP", "dpo-ppo", "discopop"),
    Method("kto", "single answers marked good or bad, weighed like gains and losses", "unpaired-preference", "teloi.methods.prefer.kto:KTO", "dpo-ppo", "kto"),
    # without a reference model
    Method("simpo", "log-probability per token as reward, with a target margin", "preference", "teloi.methods.prefer.reference_free:SimPO", "dpo-ppo", "simpo"),
    Method("orpo", "imitation and preference in one: adds an odds-ratio term to SFT", "preference", "teloi.methods.prefer.reference_free:ORPO", "dpo-ppo", "orpo"),
    Method("cpo", "DPO with a uniform reference, plus imitation of the chosen answer", "preference", "teloi.methods.prefer.reference_free:CPO", "dpo-ppo", "cpo"),
    # vectors of texts and of tasks
    Method("in-batch", "pairs of texts that belong together, all others of the batch as negatives (InfoNCE)", "pair", "teloi.methods.represent.contrastive:InBatch", "vacancysbert", "mnr", ("mnr", "infonce", "multiple-negatives-ranking-loss", "multiplenegativesrankingloss")),
    Method("simcse", "plain sentences, each its own positive under other dropout: sentence vectors without pairs", "language-modeling", "teloi.methods.represent.simcse:SimCSE", "vega", "simcse", ("unsupervised-simcse",)),
    Method("vacancysbert", "match titles with samples of the skills that go with them, to find a normalised title", "title-skills", "teloi.methods.represent.vacancysbert:VacancySBERT", "vacancysbert"),
    Method("grif", "one policy for goals and words: align an instruction with the change it asks for", "trajectory", "teloi.methods.represent.grif:GRIF", "grif"),
    # from rewards for what the policy samples
    Method("rm", "a scalar reward of answers, from which of two was preferred", "preference", "teloi.methods.reinforce.reward_model:RewardModel", "summarize-hf", also=("reward-model",)),
    Method("segment-rm", "which sentences, or parts of them, are wrong in an answer, from marked errors", "error-spans", "teloi.methods.reinforce.segment_reward:SegmentReward", "fgrlhf"),
    Method("pm", "a preference of two answers that it sees both, from which of them was preferred: a judge", "preference", "teloi.methods.reinforce.reward_model:PreferenceModel", "nashmd", also=("preference-model",)),
    Method("ppo", "sample answers, raise the tokens that did better than a learned critic expected, near the start model", "prompt-only", "teloi.methods.reinforce.ppo:PPO", "summarize-hf", "ppo", ("rlhf",)),
    Method("macro-ppo", "ppo whose actions are several tokens: a reward at the end has fewer steps to travel back", "prompt-only", "teloi.methods.reinforce.macro_ppo:MacroPPO", "marlhf", also=("ma-rlhf", "ma-ppo")),
    Method("fine-grained-ppo", "ppo from several rewards, each paid where a segment ends that it judges", "prompt-only", "teloi.methods.reinforce.fine_grained_ppo:FineGrainedPPO", "fgrlhf", also=("fine-grained-rlhf",)),
    Method("rlvr", "ppo on what a program finds right, with a penalty for answers without an end", "prompt-only", "teloi.methods.reinforce.rlvr:RLVR", "tulu3", also=("reinforcement-learning-with-verifiable-rewards",)),
    Method("grpo", "sample a group of answers, raise those that beat the group's mean reward", "prompt-only", "teloi.methods.reinforce.grpo:GRPO", "tulu3", "grpo"),
    Method("nash-md", "raise an answer as far as a judge prefers it to that of a mixture of policy and start model", "prompt-only", "teloi.methods.reinforce.nash_md:NashMD", "nashmd", also=("nash-md-pg", "nashmd")),
    Method("nash-ema", "nash-md against the moving average of the policy's own weights", "prompt-only", "teloi.methods.reinforce.nash_md:NashEMA", "nashmd", also=("nash-ema-pg",)),
    Method("rloo", "REINFORCE with the mean reward of the other samples as baseline", "prompt-only", "teloi.methods.reinforce.grpo:RLOO", "tulu3", "rloo"),
    Method("tulu3", "clean the prompts, imitate, prefer, reinforce by checked answers, measure each stage", "prompt-completion", "teloi.recipes.reinforce.tulu3:Tulu3", "tulu3", kind="recipe"),
    Method("rm-ppo", "a reward model of pairs, then ppo on their prompts against it, within one budget", "preference", "teloi.recipes.reinforce.rm_ppo:RMPPO", "dpo-ppo", "summarize-hf", kind="recipe"),
    # ways to write with a model that stays as it is
    Method("best-of-n", "sample n answers, give the one with the highest reward", "prompt-only", "teloi.methods.decode.best_of_n:BestOfN", "summarize-hf", also=("bon", "rejection-sampling"), kind="decoder"),
)
# fmt: on


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


_BY_NAME = {alias: method for method in METHODS for alias in (method.name, *method.also)}


def find(name: str) -> Method:
    """The method of that name; case does not matter, nor whether it is spelt with "_" or "-".

    Raises `UsageError` with the nearest names if there is none.
    """
    method = _BY_NAME.get(_plain(name))
    if method is None:
        near = hint(_plain(name), _BY_NAME, "`teloi list` shows them all")
        raise UsageError(f"there is no method {name!r}; {near}")
    return method


def claim_of(slug: str) -> str:
    """The module that states a paper's claim; `UsageError` with the nearest names if there is none."""
    module = CLAIMS.get(_plain(slug))
    if module is None:
        near = hint(_plain(slug), CLAIMS, "`teloi claim --list` shows them all")
        raise UsageError(f"there is no claim {slug!r}; {near}")
    return module


def is_file(name: str) -> bool:
    """Whether `name` has the form "my_file.py:MyObjective" of a user's own objective."""
    return ".py:" in name or name.endswith(".py")


def resolve(name_or_file: str) -> type[Any]:
    """The class behind a method's name, or the objective or recipe behind a user's "path/to/my_file.py:MyObjective".

    Raises `UsageError` for an unknown name, a missing file, or a class that is missing or no `Objective`. What
    goes wrong inside the user's file keeps its traceback.
    """
    if not is_file(name_or_file):
        return find(name_or_file).load()
    # Windows paths hold a colon too: the class stands behind the last one.
    file, _, name = name_or_file.rpartition(":")
    if not file or not name.isidentifier():
        raise UsageError(f"{name_or_file!r} names no class; write {name_or_file}:MyObjective")
    return _objective_in(import_file(file), name, file)


def _objective_in(module: ModuleType, name: str, file: str) -> type[Any]:
    from teloi.engine.objective import Objective
    from teloi.engine.recipe import Recipe

    found: Any = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Objective | Recipe):
        if "__dataclass_fields__" not in vars(found):
            raise UsageError(f"{name} in {file} is no dataclass: write @dataclass(frozen=True) above it")
        if getattr(found, "reads", None) is None:
            raise UsageError(f"{name} in {file} does not say what it reads: give it reads = Preference, say")
        return found
    if found is not None:
        raise UsageError(f"{name} in {file} is no teloi.Objective")
    own = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Objective) and value.__module__ == module.__name__
    ]
    raise UsageError(f"{file} has no {name}" + (f"; it has {', '.join(own)}" if own else ", nor any Objective"))
