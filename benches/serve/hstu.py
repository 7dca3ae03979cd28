"""HSTU (Zhai et al. 2024) of the size of the SASRec that serves, with random weights from a seed.

The tensors have the names of the authors' research code, which `rec_import` reads.
"""

import numpy
import safetensors.numpy

DIM = 64
BLOCKS = 2
PADDING = 11
TIME_BUCKETS = 129


def checkpoint(items, window, seed=1):
    """A safetensors file for `items` items: row 0 of the item table is padding, row n is the n-th item."""
    random = numpy.random.default_rng(seed)

    def normal(shape, deviation):
        return (deviation * random.standard_normal(shape)).astype(numpy.float32)

    padded = window + PADDING
    tensors = {
        "_embedding_module._item_emb.weight": normal((items + 1, DIM), 0.1),
        "_input_features_preproc._pos_emb.weight": normal((padded, DIM), 0.1),
    }
    for block in range(BLOCKS):
        layer = f"_hstu._attention_layers.{block}"
        tensors[f"{layer}._uvqk"] = normal((DIM, 4 * DIM), 0.2)
        tensors[f"{layer}._o.weight"] = normal((DIM, DIM), DIM**-0.5)
        tensors[f"{layer}._o.bias"] = normal(DIM, 0.02)
        tensors[f"{layer}._rel_attn_bias._pos_w"] = normal(2 * padded - 1, 0.1)
        tensors[f"{layer}._rel_attn_bias._ts_w"] = normal(TIME_BUCKETS, 0.1)
    return safetensors.numpy.save(tensors)
