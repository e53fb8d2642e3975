"""Corruption of token sequences, the part that denoising objectives share: pure NumPy, no tokenizer, no model.

What is drawn at random (a mask, a replacement) is apart from how it is rendered (inputs and labels), and every random
number comes from the generator that the caller passes. `spans` makes text-to-text pairs, `tokens` replaces single
tokens in place, `clusters` draws replacements that fool the model. `Ragged` holds sequences of unequal length.
"""
