"""Checkpoint folders of the Hugging Face format: config.json, *.safetensors.

`reading.from_pretrained` and `writing.save_pretrained` need neither torch nor
transformers. A family is a file of `families`: which keys of config.json are
which fields of `DecoderConfig`, and which tensors are which leaves (`mapping`),
for both ways. A new one is such a file and its name in `families.REGISTRY`.

Not read, by name: models with latent attention (MLA), encoder-decoders, and
quantised files. Tensors that are known and not used (rotary buffers, layers
that predict further tokens, a head that is tied) are logged, listed in
`model.origin.unused` and not written again. Two things follow the papers and
not transformers 5.24: beyond its original context Phi-3.5-MoE's long factors
are used, and the base of dynamic scaling follows the sequence at hand alone.
"""
