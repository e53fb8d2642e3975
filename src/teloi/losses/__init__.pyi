"""The public names, each with its module. `__init__.py` reads them from here when it is imported."""

from .advantages import (
    before_first as before_first,
    clipped_value_loss as clipped_value_loss,
    gae as gae,
    real as real,
    scores_at_ends as scores_at_ends,
    scores_at_segments as scores_at_segments,
    unfinished as unfinished,
    whiten as whiten,
)
from .cloning import (
    gaussian_nll as gaussian_nll,
)
from .contrastive import (
    contrast as contrast,
    cosine_pull as cosine_pull,
    info_nce as info_nce,
    inverse_temperature as inverse_temperature,
    mean_pool as mean_pool,
    same_group as same_group,
    simcse as simcse,
    similarity as similarity,
    symmetric_info_nce as symmetric_info_nce,
    two_view_nce as two_view_nce,
)
from .finetuning import (
    ascend as ascend,
    calibrated_cross_entropy as calibrated_cross_entropy,
    symmetric_cross_entropy as symmetric_cross_entropy,
    symmetric_kl as symmetric_kl,
)
from .logps import (
    logps_from_logits as logps_from_logits,
    per_token as per_token,
    perplexity as perplexity,
    segment_mean as segment_mean,
    segment_sum as segment_sum,
    sequence_logps as sequence_logps,
    token_logps as token_logps,
)
from .macro import (
    aggregate as aggregate,
    fixed_starts as fixed_starts,
    listed_starts as listed_starts,
    parsed_starts as parsed_starts,
    perplexity_starts as perplexity_starts,
    spread as spread,
)
from .momentum import (
    draw_weighted as draw_weighted,
    hard_negative_weights as hard_negative_weights,
    matching as matching,
    matching_labels as matching_labels,
    momentum_info_nce as momentum_info_nce,
)
from .nash import (
    best_response as best_response,
    both_orders as both_orders,
    bradley_terry as bradley_terry,
    decreasing_step as decreasing_step,
    divergence as divergence,
    equilibrium as equilibrium,
    exploitability as exploitability,
    mirror_step as mirror_step,
    mixture_logps as mixture_logps,
    nash_md as nash_md,
    penalised_preference as penalised_preference,
    regularised_step as regularised_step,
)
from .policy import (
    clipped_surrogate as clipped_surrogate,
    group_advantages as group_advantages,
    kl_estimate as kl_estimate,
    leave_one_out_advantages as leave_one_out_advantages,
    reinforce as reinforce,
)
from .preference import (
    aot as aot,
    aot_unpaired as aot_unpaired,
    apo_down as apo_down,
    apo_zero as apo_zero,
    bco_pair as bco_pair,
    cpo as cpo,
    discopop as discopop,
    dpo as dpo,
    dpo_norm as dpo_norm,
    exo_pair as exo_pair,
    hinge as hinge,
    implicit_reward as implicit_reward,
    ipo as ipo,
    ipo_sum as ipo_sum,
    log_ratio as log_ratio,
    nca_pair as nca_pair,
    orpo as orpo,
    reward_pair as reward_pair,
    robust as robust,
    simpo as simpo,
    sppo_hard as sppo_hard,
)
from .scored import (
    reward_weighted as reward_weighted,
    reward_weights as reward_weights,
    unlikelihood as unlikelihood,
    value_error as value_error,
)
from .soft_labels import (
    distillation as distillation,
    distillation_weight as distillation_weight,
    highest as highest,
    label_entropy as label_entropy,
    learnable_hardness as learnable_hardness,
    selection_score as selection_score,
)
from .tokens import (
    nll_and_z as nll_and_z,
    sample_tokens as sample_tokens,
    token_cross_entropy as token_cross_entropy,
)
from .unpaired import (
    kl_baseline as kl_baseline,
    kto as kto,
)

__all__: list[str]
