"""What the CUDA kernels take beside PyTorch's on the same device: a table, and all numbers in a file.

    python3 report.py MEASURED.jsonl REPORT.json

Rates are of the multiplications that a causal kernel needs: half of a full square.
"""

import json
import sys

import torch

import peers
import roofline


def attention_line(row, rate, capability):
    """One kernel of attention, its share of the dense rate, and what bounds it."""
    row["of_dense_rate"] = roofline.attention_operations(row) / row["seconds"] / rate
    line = (f"{row['name']:<17} {row['precision']:<4} len {row['len']} head {row['dim'] // row['heads']:>3} "
            f"biases {row['biases']:<19} {row['seconds'] * 1e3:8.3f} ms, {row['of_dense_rate']:.0%} of the dense rate")
    limits = roofline.attention_limits(row, rate, capability) if row["precision"] == "Bf16" else None
    if limits:
        row["limits"] = limits
        line += (f"; {roofline.special_operations(row):.2f} special functions a pair allow {limits[0]:.0%} beside the "
                 f"products, {limits[1]:.0%} after them")
    return line


def layer_lines(shape, rows, peer):
    """HSTU layers of one shape beside Transformer layers, and where the difference comes from."""
    compiled = "compiled" if "layer_compiled" in peer else "not compiled"
    yield (f"torch len {shape[1]} head {shape[2] // shape[3]}: flash {peer['flash'] * 1e3:.3f} ms; Transformer layer eager "
           f"{peer['layer'] * 1e3:.3f} ms, {compiled} {peer.get('layer_compiled', peer['layer']) * 1e3:.3f} ms, without FFN "
           f"{peer.get('attention_only_compiled', peer['attention_only']) * 1e3:.3f} ms")
    for row in rows:
        parts = row["advantage"] = roofline.advantage(row["seconds"], peer)
        yield (f"  HSTU layer, biases {row['biases']:<19}: {row['seconds'] * 1e3:.3f} ms; {parts['all']:.2f}x the eager layer = "
               f"{parts['setup']:.2f} (compiling it) x {parts['ffn']:.2f} (no FFN) x {parts['kernel']:.2f} (kernels); "
               f"{parts['ffn'] * parts['kernel']:.2f}x the compiled one")


def users_line(row, rate, bandwidth):
    """Users a second of one batch, and its share of the roofline."""
    least, row["bound"] = roofline.model_roofline(row, rate, bandwidth)
    row["of_roofline"] = least / row["seconds"]
    return (f"{row['name']:<21} {row['precision']:<4} {row['users']:>4} users of {row['len']:>3} events: "
            f"{row['users'] / row['seconds']:>11,.0f} users/s, {row['of_roofline']:6.2%} of the roofline ({row['bound']}), "
            f"{row['launches']} launches")


def main():
    measured = [json.loads(line) for line in open(sys.argv[1])]
    rates = {precision: peers.matrix_rate(precision) for precision in ("Bf16", "F32")}
    bandwidth, capability = peers.bandwidth(), torch.cuda.get_device_capability(0)
    report = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "rates": rates, "bandwidth": bandwidth,
              "measured": measured, "peers": []}
    lines = [f"{report['device']}: dense bf16 {rates['Bf16'] / 1e12:.0f} TFLOP/s, f32 {rates['F32'] / 1e12:.0f}, memory "
             f"{bandwidth / 1e12:.2f} TB/s, all measured"]
    shapes = {}
    for row in measured:
        if row["name"] in ("hstu attention", "softmax attention"):
            lines.append(attention_line(row, rates[row["precision"]], capability))
        if row["name"] == "hstu layer" and row["precision"] == "Bf16":
            shapes.setdefault((row["histories"], row["len"], row["dim"], row["heads"]), []).append(row)
    for shape, rows in shapes.items():
        peer = peers.layers(shape)
        report["peers"].append({"shape": shape} | peer)
        lines += layer_lines(shape, rows, peer)
    lines += [f"{row['name']:<21} {row['precision']:<4} {row['histories']} histories of {row['len']} events: "
              f"{row['seconds'] * 1e3:.3f} ms" for row in measured if row["name"].startswith("part ")]
    lines.append("the roofline: products at the measured rate of their precision, or what operators read and write, each "
                 "once, at the measured bandwidth, whichever takes longer")
    lines += [users_line(row, rates[row["precision"]], bandwidth) for row in measured if "users" in row]
    with open(sys.argv[2], "w") as file:
        json.dump(report, file, indent=1)
    print("\n".join(lines))


main()
