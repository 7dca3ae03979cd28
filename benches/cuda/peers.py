"""What PyTorch does on the same device, and what the device does at most."""

import statistics
import time

import torch
import torch.nn.functional as F

DEVICE = torch.device("cuda:0")
FLASH = torch.nn.attention.SDPBackend.FLASH_ATTENTION


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


def matrix_rate(precision):
    """Floating-point operations a second of dense products, of bf16 on tensor cores or of f32 without them."""
    kind = torch.bfloat16 if precision == "Bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = False
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=kind) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b)


def bandwidth():
    """Bytes read and written a second."""
    x = torch.randn(1 << 30, device=DEVICE)
    y = torch.empty_like(x)
    return 2 * x.numel() * 4 / seconds(lambda: y.copy_(x))


def flash(histories, length, dim, heads):
    """Seconds of causal scaled_dot_product_attention in bf16."""
    q, k, v = (torch.randn(histories, heads, length, dim // heads, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    with torch.nn.attention.sdpa_kernel(FLASH):
        return seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))


def layer(shape, ffn, compiled):
    """Seconds of a pre-norm Transformer layer with FlashAttention in bf16, with a feed-forward half four times as wide or
    without one."""
    histories, length, dim, heads = shape
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
        return x + F.gelu(F.layer_norm(x, (dim,)) @ up) @ down if ffn else x

    work = torch.compile(forward) if compiled else forward
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(FLASH):
        return seconds(lambda: work(x))


def layers(shape):
    """All peers of an HSTU layer, by name."""
    found = {"flash": flash(*shape), "layer": layer(shape, True, False), "attention_only": layer(shape, False, False)}
    try:
        found["layer_compiled"] = layer(shape, True, True)
        found["attention_only_compiled"] = layer(shape, False, True)
    except Exception as error:  # a machine without what torch.compile needs
        found.pop("layer_compiled", None)
        found["compile_error"] = str(error).splitlines()[0]
    return found
