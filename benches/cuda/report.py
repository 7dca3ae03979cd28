"""What the CUDA kernels take beside PyTorch's on the same device: a table, and all numbers in a file.

    python3 report.py MEASURED.jsonl REPORT.json

Rates are of the multiplications that a causal kernel needs: half of a full square.
"""

import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = torch.device("cuda:0")


def seconds(work, repeats=7, budget=0.5):
    """Median seconds of a call; calls are started together and waited for."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    calls = max(1, min(10_000, int(budget / repeats / (time.perf_counter() - start))))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def matrix_rate():
    """Dense bf16 multiplications and additions a second."""
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b)


def bandwidth():
    """Bytes read and written a second."""
    x = torch.randn(1 << 30, device=DEVICE)
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / seconds(lambda: y.copy_(x))


def flash(histories, length, dim, heads):
    """Seconds of causal scaled_dot_product_attention in bf16."""
    q, k, v = (torch.randn(histories, heads, length, dim // heads, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))


def transformer_layer(histories, length, dim, heads, compiled):
    """Seconds of a pre-norm layer with FlashAttention and a feed-forward half four times as wide, in bf16."""
    kind = {"device": DEVICE, "dtype": torch.bfloat16}
    x = torch.randn(histories, length, dim, **kind)
    wide = torch.randn(dim, 3 * dim, **kind) / dim**0.5
    out = torch.randn(dim, dim, **kind) / dim**0.5
    up, down = torch.randn(dim, 4 * dim, **kind) / dim**0.5, torch.randn(4 * dim, dim, **kind) / (4 * dim) ** 0.5

    def forward(x):
        q, k, v = (F.layer_norm(x, (dim,)) @ wide).chunk(3, dim=-1)
        q, k, v = (y.view(histories, length, heads, dim // heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).reshape(histories, length, dim) @ out
        return x + F.gelu(F.layer_norm(x, (dim,)) @ up) @ down

    work = torch.compile(forward) if compiled else forward
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return seconds(lambda: work(x))


def attention_operations(row):
    """Of both products over the pairs that a causal kernel needs."""
    return 4 * row["histories"] * row["len"] ** 2 / 2 * row["dim"]


def main():
    measured = [json.loads(line) for line in open(sys.argv[1])]
    rate, bytes_a_second = matrix_rate(), bandwidth()
    report = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "dense_bf16": rate,
              "bandwidth": bytes_a_second, "measured": measured, "peers": []}
    lines = [f"{report['device']}: dense bf16 {rate / 1e12:.0f} TFLOP/s, memory {bytes_a_second / 1e12:.2f} TB/s"]
    shapes = {}
    for row in measured:
        if row["name"].endswith("attention"):
            row["of_dense_rate"] = attention_operations(row) / row["seconds"] / rate
            lines.append(f"{row['name']:<18} {row['precision']:<5} len {row['len']} head {row['dim'] // row['heads']:>3} "
                         f"timed {row.get('timed')!s:<5} {row['seconds'] * 1e3:8.3f} ms, {row['of_dense_rate']:.0%} of the dense rate")
        if row["name"] == "hstu layer" and row["precision"] == "Bf16":
            shapes.setdefault((row["histories"], row["len"], row["dim"], row["heads"]), []).append(row)
    for shape, rows in shapes.items():
        peer = {"shape": shape, "flash": flash(*shape), "layer": transformer_layer(*shape, False)}
        try:
            peer["layer_compiled"] = transformer_layer(*shape, True)
        except Exception as error:  # a machine without what torch.compile needs
            peer["layer_compiled_error"] = str(error).splitlines()[0]
        report["peers"].append(peer)
        lines.append(f"torch len {shape[1]} head {shape[2] // shape[3]}: flash {peer['flash'] * 1e3:.3f} ms, "
                     f"Transformer layer {peer['layer'] * 1e3:.3f} ms, compiled {peer.get('layer_compiled', float('nan')) * 1e3:.3f} ms")
        best = min(peer["layer"], peer.get("layer_compiled", float("inf")))
        lines += [f"  HSTU layer, timed {row['timed']!s:<5}: {row['seconds'] * 1e3:.3f} ms, {best / row['seconds']:.2f} times as fast"
                  for row in rows]
    for row in measured:
        if "users" in row:
            lines.append(f"{row['name']:<21} {row['precision']:<5} {row['users']:>5} users of {row['len']:>3} events: "
                         f"{row['users'] / row['seconds']:>12,.0f} users/s" + (f", {row['launches']} launches" if "launches" in row else ""))
    with open(sys.argv[2], "w") as file:
        json.dump(report, file, indent=1)
    print("\n".join(lines))


main()
