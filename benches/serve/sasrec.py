"""SASRec (Kang & McAuley 2018) of the size of the paper's ml-1m model, with random weights from a seed.

The tensors have the names of the PyTorch port of the authors' code, which `rec_import` reads.
"""

import numpy
import safetensors.numpy

DIM = 64
BLOCKS = 2
WINDOW = 200
NORM_EPS = 1e-8


def checkpoint(items, seed=1):
    """A safetensors file for `items` items: row 0 of the item table is padding, row n is the n-th item."""
    random = numpy.random.default_rng(seed)

    def normal(shape, deviation, mean=0.0):
        return (mean + deviation * random.standard_normal(shape)).astype(numpy.float32)

    tensors = {"item_emb.weight": normal((items + 1, DIM), 0.1), "pos_emb.weight": normal((WINDOW, DIM), 0.1)}
    tensors["item_emb.weight"][0] = 0

    def norm(name):
        tensors[f"{name}.weight"] = normal(DIM, 0.1, mean=1.0)
        tensors[f"{name}.bias"] = normal(DIM, 0.1)

    def linear(weight, bias, shape):
        tensors[weight] = normal(shape, DIM**-0.5)
        tensors[bias] = normal(shape[0], 0.02)

    for block in range(BLOCKS):
        attention, forward = f"attention_layers.{block}", f"forward_layers.{block}"
        norm(f"attention_layernorms.{block}")
        linear(f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", (3 * DIM, DIM))
        linear(f"{attention}.out_proj.weight", f"{attention}.out_proj.bias", (DIM, DIM))
        norm(f"forward_layernorms.{block}")
        for layer in ("conv1", "conv2"):
            linear(f"{forward}.{layer}.weight", f"{forward}.{layer}.bias", (DIM, DIM, 1))
    norm("last_layernorm")
    return safetensors.numpy.save(tensors)


def item_table(checkpoint):
    """The item vectors of a checkpoint, which score too."""
    return safetensors.numpy.load(checkpoint)["item_emb.weight"]
