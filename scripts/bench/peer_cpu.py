#!/usr/bin/python3
"""The calibration peer of a training step on the CPU: a plain Samba in PyTorch, float32.

Debian: python3-torch python3-numpy libopenblas-dev. It loads what `sambatrain export` wrote,
does AdamW steps on random tokens, and prints one line of JSON. Nothing in it is written
for speed by hand: matrix products, softmax, autograd and AdamW are PyTorch's. Where there is
a choice (--scan, --attention, --conv) the defaults are the fastest of what was tried.

  peer_cpu.py EXPORTED [--rows 4] [--seq-len 1024] [--steps 3] [--threads 2]
  peer_cpu.py EXPORTED --row FILE    the loss of FILE's bytes as one row, end of text after them
"""
import argparse
import json
import math
import os
import resource
import struct
import time

import numpy
import torch
import torch.nn.functional as F


def read_safetensors(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        tensors = {}
        for name, t in header.items():
            if name == "__metadata__":
                continue
            assert t["dtype"] == "F32", name
            begin, end = t["data_offsets"]
            f.seek(8 + n + begin)
            data = numpy.frombuffer(bytearray(f.read(end - begin)), numpy.float32)
            tensors[name] = torch.from_numpy(data).reshape(t["shape"])
        return tensors


def rms_norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def rope(x, base):
    """x [B H T D]: rotary positions, half-split."""
    t, d = x.shape[-2:]
    angle = torch.arange(t)[:, None] * base ** (-torch.arange(0, d, 2) / d)
    c, s = angle.cos(), angle.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * c - b * s, a * s + b * c], -1)


def attend(q, k, v, first):
    """Queries [B H M D] at positions first.. of the keys [B H N D], masked to the window."""
    i = torch.arange(q.shape[2])[:, None] + first
    j = torch.arange(k.shape[2])[None, :]
    mask = torch.zeros(q.shape[2], k.shape[2])
    mask.masked_fill_((j > i) | (j <= i - attend.window), float("-inf"))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3)) + mask
    return torch.matmul(scores.softmax(-1), v)


def attention(x, p, c, choice):
    b, t, _ = x.shape
    h, kv, d = c["heads"], c["kv_heads"], c["head_dim"]
    q, k, v = (F.linear(x, p[n + "_proj.weight"]).view(b, t, m, d).transpose(1, 2) for n, m in (("q", h), ("k", kv), ("v", kv)))
    if c["rope_base"]:
        q, k = rope(q, c["rope_base"]), rope(k, c["rope_base"])
    if kv != h:
        k, v = k.repeat_interleave(h // kv, 1), v.repeat_interleave(h // kv, 1)
    attend.window = c["window"]
    if choice == "masked":
        o = attend(q, k, v, 0)
    else:  # blocks of queries, each against the keys that it can see
        parts = []
        for s in range(0, t, c["block"]):
            e, first = min(s + c["block"], t), max(0, s - c["window"] + 1)
            parts.append(attend(q[:, :, s:e], k[:, :, first:e], v[:, :, first:e], s - first))
        o = torch.cat(parts, 2)
    return F.linear(o.transpose(1, 2).reshape(b, t, h * d), p["o_proj.weight"])


def scan_sequential(u, delta, a, bm, cm):
    """h_t = exp(delta_t a) h_{t-1} + delta_t u_t b_t, one token after another. u, delta [B T D]; a [D N]; bm, cm [B T N]."""
    x, delta = (delta * u).unsqueeze(-1).unbind(1), delta.unsqueeze(-1).unbind(1)
    bm, cm = bm.unsqueeze(2).unbind(1), cm.unsqueeze(-1).unbind(1)
    h, ys = u.new_zeros(1), []
    for t in range(len(x)):
        h = torch.addcmul(x[t] * bm[t], torch.exp(delta[t] * a), h)
        ys.append(torch.matmul(h, cm[t]))
    return torch.stack(ys, 1).squeeze(-1)


def scan_chunked(u, delta, a, bm, cm, length=16):
    """The same by chunks: within one, cumulative sums in parallel; between them, a loop."""
    b, t, d = u.shape
    pad = -t % length
    if pad:
        u, delta, bm, cm = (F.pad(x, (0, 0, 0, pad)) for x in (u, delta, bm, cm))
    n = (t + pad) // length
    chunks = lambda x: x.reshape(b, n, length, -1)
    log_decay = torch.cumsum(chunks(delta).unsqueeze(-1) * a, 2)  # [B n L D N]
    decay = log_decay.exp()
    x = chunks(delta * u).unsqueeze(-1) * chunks(bm).unsqueeze(3)
    local = decay * torch.cumsum(x * (-log_decay).exp(), 2)
    h, before = torch.zeros_like(local[:, 0, 0]), []
    for whole, last in zip(decay[:, :, -1].unbind(1), local[:, :, -1].unbind(1)):
        before.append(h)
        h = torch.addcmul(last, whole, h)
    states = local + decay * torch.stack(before, 1).unsqueeze(2)
    y = torch.matmul(states, chunks(cm).unsqueeze(-1)).squeeze(-1)
    return y.reshape(b, t + pad, d)[:, :t]


def conv_grouped(x, w, b):
    return F.conv1d(x.transpose(1, 2), w, b, padding=w.shape[-1] - 1, groups=w.shape[0])[..., : x.shape[1]].transpose(1, 2)


def conv_shifted(x, w, b):
    """A causal depthwise convolution as a sum of shifted products."""
    t, taps = x.shape[1], w.shape[-1]
    x = F.pad(x, (0, 0, taps - 1, 0))
    y = b
    for k in range(taps):
        y = torch.addcmul(y, x[:, k : k + t], w[:, 0, k])
    return y


SCANS = {"sequential": scan_sequential, "chunked": scan_chunked}
CONVS = {"grouped": conv_grouped, "shifted": conv_shifted}


def mamba(x, p, c, choice):
    u, z = F.linear(x, p["in_proj.weight"]).chunk(2, -1)
    u = F.silu(CONVS[choice.conv](u, p["conv1d.weight"], p["conv1d.bias"]))
    n = c["d_state"]
    r = p["dt_proj.weight"].shape[1]
    dt, bm, cm = F.linear(u, p["x_proj.weight"]).split([r, n, n], -1)
    delta = F.softplus(F.linear(dt, p["dt_proj.weight"], p["dt_proj.bias"]))
    y = SCANS[choice.scan](u, delta, -torch.exp(p["A_log"]), bm, cm) + p["D"] * u
    return F.linear(y * F.silu(z), p["out_proj.weight"])


def mlp(x, p):
    return F.linear(F.silu(F.linear(x, p["gate_proj.weight"])) * F.linear(x, p["up_proj.weight"]), p["down_proj.weight"])


class Samba:
    def __init__(self, folder, choice):
        with open(os.path.join(folder, "config.json")) as f:
            self.config = json.load(f)["model"]
        self.params = read_safetensors(os.path.join(folder, "model.safetensors"))
        for w in self.params.values():
            w.requires_grad_()
        c, self.choice = self.config, choice
        self.kinds = c["layers"]["pattern"] * c["layers"].get("repeat", 1)
        assert set(self.kinds) <= {"mamba", "swa", "mlp"}, self.kinds
        self.parts = []
        for i in range(len(self.kinds)):
            prefix = f"model.layers.{i}.mixer."
            self.parts.append({n[len(prefix):]: w for n, w in self.params.items() if n.startswith(prefix)})

    def loss(self, tokens, targets):
        c, p = self.config, self.params
        embedding = p["model.embeddings.weight"]
        x = F.embedding(tokens, embedding)
        for i, kind in enumerate(self.kinds):
            h = rms_norm(x, p[f"model.layers.{i}.norm.weight"], c["norm_eps"])
            if kind == "mamba":
                h = mamba(h, self.parts[i], c["mamba"], self.choice)
            elif kind == "swa":
                h = attention(h, self.parts[i], {**c["attention"], "block": self.choice.block}, self.choice.attention)
            else:
                h = mlp(h, self.parts[i])
            x = x + h
        x = rms_norm(x, p["model.norm_f.weight"], c["norm_eps"])
        logits = F.linear(x, p.get("lm_head.weight", embedding))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("exported", help="folder that `sambatrain export --format safetensors` wrote")
    a.add_argument("--rows", type=int, default=4)
    a.add_argument("--seq-len", type=int, default=1024)
    a.add_argument("--steps", type=int, default=3, help="steps that are timed, after one to warm up")
    a.add_argument("--threads", type=int, default=0, help="torch.set_num_threads; 0 leaves PyTorch's default")
    a.add_argument("--scan", choices=SCANS, default="sequential")
    a.add_argument("--attention", choices=["masked", "blocked"], default="masked")
    a.add_argument("--block", type=int, default=256, help="queries of a block")
    a.add_argument("--conv", choices=CONVS, default="shifted")
    a.add_argument("--row", help="file of a row's bytes: print the loss and end")
    a.add_argument("--profile", action="store_true", help="print where the last step's time goes")
    o = a.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    model = Samba(o.exported, o)
    if o.row:
        data = list(open(o.row, "rb").read()) + [256]
        tokens = torch.tensor([data])
        with torch.no_grad():
            print(json.dumps({"loss": model.loss(tokens, tokens.roll(-1, 1)).item()}))
        return
    tokens, targets = (torch.randint(model.config["vocab_size"], (o.rows, o.seq_len)) for _ in range(2))
    params = list(model.params.values())
    optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    took = []

    def step():
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        model.loss(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        took.append(time.perf_counter() - started)

    for _ in range(o.steps + 1):
        step()
    ms = sorted(1e3 * t for t in took[1:])
    median = ms[len(ms) // 2]
    print(json.dumps({
        "torch": torch.__version__, "threads": torch.get_num_threads(), "scan": o.scan, "attention": o.attention, "conv": o.conv,
        "parameters": sum(w.numel() for w in params), "rows": o.rows, "seq_len": o.seq_len, "steps": o.steps,
        "step_ms": median, "min_step_ms": ms[0], "max_step_ms": ms[-1], "tokens_per_second": o.rows * o.seq_len / median * 1e3,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }))
    if o.profile:
        with torch.profiler.profile() as p:
            step()
        print(p.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
