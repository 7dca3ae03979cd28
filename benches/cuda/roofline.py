"""What a device could do at most, of what the report measures: computed from shapes and from the device's measured rates.

    python3 -m doctest roofline.py
"""

# Of one multiprocessor in one clock, by compute capability: floating-point operations of dense bf16 products with f32
# sums, and of its special-function units (exponential, logarithm, tanh), from NVIDIA's architecture white papers and the
# table of arithmetic throughput in the CUDA C++ Programming Guide.
PRODUCTS = {(8, 0): 2048, (9, 0): 4096, (10, 0): 8192}
SPECIAL = 16

BYTES = {"Bf16": 2, "F32": 4}


def attention_operations(row):
    """Floating-point operations of both products, over the pairs of an event and one before it."""
    return 4 * pairs(row) * row["dim"]


def pairs(row):
    """
    >>> pairs({"histories": 2, "len": 3})
    12
    """
    return row["histories"] * row["len"] * (row["len"] + 1) // 2


def special_operations(row):
    """Special-function operations for each pair and head: a tanh for SiLU or an exponential for the softmax, and the
    logarithms of buckets of time that are computed."""
    return 1 + row["logarithms"]


def attention_limits(row, rate, capability):
    """The shares of the dense rate that attention reaches at most: where its special functions are computed beside the
    products, and where each waits for the other. None where the device's rates are not known. The measured rate is taken
    to be all that the tensor cores do in their clocks; where it is less, special functions allow more than this says.

    A pair takes 4·64/4096 clocks of products on Hopper and 1/16 of special functions:
    >>> row = {"dim": 512, "heads": 8, "logarithms": 0.0}
    >>> attention_limits(row, 8e14, (9, 0))
    (1.0, 0.5)
    >>> beside, after = attention_limits(row | {"logarithms": 1.0}, 8e14, (9, 0))
    >>> round(beside, 3), round(after, 3)
    (0.5, 0.333)
    >>> attention_limits(row | {"heads": 4}, 8e14, (9, 0))[0]
    1.0
    """
    if capability not in PRODUCTS:
        return None
    products = 4 * row["dim"] / row["heads"] / rate
    special = special_operations(row) / (rate / PRODUCTS[capability] * SPECIAL)
    return min(1.0, products / special), products / (products + special)


def model_roofline(row, rate, bandwidth):
    """Seconds below which users cannot be encoded, or answered: the larger of what products take at the measured matrix
    rate, and of what the operators read and write, each once, at the measured bandwidth. And which of them it is.

    What lies in a cache between two operators may be read faster than that.
    >>> row = {"users": 1, "len": 1, "dim": 64, "layers": 2, "items": 10_000, "precision": "Bf16", "name": "answer"}
    >>> seconds, bound = model_roofline(row, 8e14, 3e12)
    >>> bound, round(seconds * 3e12 / (2 * 64 * 10_000), 2)
    ('memory', 1.07)
    """
    events, dim, layers, size = row["users"] * row["len"], row["dim"], row["layers"], BYTES[row["precision"]]
    # Four projections and the output; both products of attention over half of a square.
    operations = layers * (2 * 5 * events * dim**2 + 4 * row["users"] * row["len"] * (row["len"] + 1) / 2 * dim)
    # The projections read x and write four; attention reads three and writes one; the output reads three and writes one.
    numbers = layers * (13 * events * dim + 5 * dim**2)
    # The gathered vectors, the last rows, their norm.
    numbers += 3 * events * dim + 4 * row["users"] * dim
    if row["name"].startswith("answer"):
        operations += 2 * row["users"] * row["items"] * dim
        numbers += row["items"] * dim + row["users"] * dim
    times = {"products": operations / rate, "memory": numbers * size / bandwidth}
    bound = max(times, key=times.get)
    return times[bound], bound


def advantage(hstu, peer):
    """By how much an HSTU layer is faster than the Transformer layer, and the three factors of that: from running the
    peer eagerly to compiling it, from leaving out its feed-forward half, and what is left, which the kernels are.

    >>> eager = {"layer": 6.0, "attention_only": 3.0}
    >>> advantage(1.0, eager | {"layer_compiled": 4.0, "attention_only_compiled": 2.0})
    {'all': 6.0, 'setup': 1.5, 'ffn': 2.0, 'kernel': 2.0}
    >>> advantage(1.0, eager)
    {'all': 6.0, 'setup': 1.0, 'ffn': 2.0, 'kernel': 3.0}
    """
    compiled = peer.get("layer_compiled", peer["layer"])
    short = peer.get("attention_only_compiled", peer["attention_only"])
    return {"all": peer["layer"] / hstu, "setup": peer["layer"] / compiled, "ffn": compiled / short, "kernel": short / hstu}
