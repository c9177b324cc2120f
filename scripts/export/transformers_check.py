"""Loads exported models in other programs and compares their scores with sambatrain's.

    python3 transformers_check.py MODELS

MODELS is what models.sh makes: for each NAME, a folder NAME in format hf and
NAME.safetensors, the tokens and scores that `sambatrain logits` wrote. Every model is run
by the plain PyTorch below, which knows nothing but the names and keys of the files, and,
where Transformers is installed, by the class that config.json names. Prints a table;
exits with 1 if a score is further away than it may be, as max|a-b| / max|b|.
"""

import json
import os
import struct
import sys

import torch
import torch.nn.functional as F

# Of float32, and of exports whose weights were rounded to bfloat16 or float16.
LIMITS = {"float32": 1e-4, "bfloat16": 1e-2, "float16": 2e-3}

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I32": torch.int32}


def load_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(n)), bytearray(f.read())
    tensors = {}
    for name, e in header.items():
        if name != "__metadata__":
            begin, end = e["data_offsets"]
            tensors[name] = torch.frombuffer(data[begin:end], dtype=DTYPES[e["dtype"]]).reshape(e["shape"])
    return tensors


def load_weights(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return load_safetensors(os.path.join(folder, "model.safetensors"))
    with open(index) as f:
        names = json.load(f)["weight_map"]
    weights = {}
    for file in sorted(set(names.values())):
        weights.update(load_safetensors(os.path.join(folder, file)))
    assert set(weights) == set(names), "the index names other tensors than the files"
    return weights


def rms_norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def mamba(x, p, rank, states):
    c = p["D"].numel()
    u, z = F.linear(x, p["in_proj.weight"]).split([c, c], -1)
    taps = p["conv1d.weight"].shape[-1]
    u = F.conv1d(F.pad(u.T, (taps - 1, 0))[None], p["conv1d.weight"], p["conv1d.bias"], groups=c)[0].T
    u = F.silu(u)
    dt, b, c_out = F.linear(u, p["x_proj.weight"]).split([rank, states, states], -1)
    dt = F.softplus(F.linear(dt, p["dt_proj.weight"], p["dt_proj.bias"]))
    a, h, rows = -torch.exp(p["A_log"]), torch.zeros(c, states, dtype=x.dtype), []
    for t in range(x.shape[0]):
        h = torch.exp(dt[t][:, None] * a) * h + (dt[t] * u[t])[:, None] * b[t][None]
        rows.append(h @ c_out[t] + p["D"] * u[t])
    return F.linear(torch.stack(rows) * F.silu(z), p["out_proj.weight"])


def rotate(x, theta):
    t, _, width = x.shape
    angle = torch.arange(t, dtype=x.dtype)[:, None] * theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention(x, p, heads, kv_heads, theta, window):
    t, (q, k, v) = x.shape[0], (F.linear(x, p[n + "_proj.weight"]) for n in "qkv")
    width = q.shape[-1] // heads
    q, k, v = (y.reshape(t, -1, width) for y in (q, k, v))
    q, k = rotate(q, theta), rotate(k, theta).repeat_interleave(heads // kv_heads, 1)
    v = v.repeat_interleave(heads // kv_heads, 1)
    scores = torch.einsum("ihd,jhd->hij", q, k) / width ** 0.5
    distance = torch.arange(t)[:, None] - torch.arange(t)[None]
    scores = scores.masked_fill((distance < 0) | (distance >= (window or t)), float("-inf"))
    return F.linear(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(t, -1), p["o_proj.weight"])


def mlp(x, p):
    return F.linear(F.silu(F.linear(x, p["gate_proj.weight"])) * F.linear(x, p["up_proj.weight"]), p["down_proj.weight"])


def plain(folder, tokens):
    """The model in float64, by its config.json and its tensors' names."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    weights = {k: v.double() for k, v in load_weights(folder).items()}
    used = set()

    def take(prefix):
        names = [k for k in weights if k.startswith(prefix)]
        used.update(names)
        return {k[len(prefix):]: weights[k] for k in names}

    kind = config["model_type"]
    root = "model" if kind in ("llama", "mistral") else "backbone"
    embedding = "embed_tokens" if root == "model" else "embeddings"
    eps = config.get("rms_norm_eps") or config.get("layer_norm_epsilon") or config.get("norm_eps")
    embed = take(f"{root}.{embedding}.")["weight"]
    x = embed[tokens.long()]
    for i in range(config["num_hidden_layers"]):
        layer = f"{root}.layers.{i}."

        def sublayer(norm, mixer, f, *args):
            p, n = take(layer + mixer + "."), take(layer + norm + ".")
            return x + f(rms_norm(x, n["weight"], eps), p, *args)

        if kind == "mamba":
            x = sublayer("norm", "mixer", mamba, config["time_step_rank"], config["state_size"])
            continue
        if kind == "samba":
            a = config["attn"]
            if i in a["layers"]:
                x = sublayer("mixer_norm", "mixer", attention, a["num_heads"], a["num_kv_heads"], a["rope_theta"], a["window_size"])
            else:
                x = sublayer("mixer_norm", "mixer", mamba, config["time_step_rank"], config["state_size"])
            x = sublayer("mlp_norm", "mlp", mlp)
            width = 256 * -(-int(config["hidden_size"] * config["hidden_ratio"] * 2 / 3) // 256)
            assert width == weights[layer + "mlp.gate_proj.weight"].shape[0], "hidden_ratio does not give the MLP's width"
            continue
        x = sublayer("input_layernorm", "self_attn", attention, config["num_attention_heads"], config["num_key_value_heads"],
                     config["rope_theta"], config.get("sliding_window"))
        x = sublayer("post_attention_layernorm", "mlp", mlp)
    x = rms_norm(x, take(f"{root}.{'norm' if root == 'model' else 'norm_f'}.")["weight"], eps)
    head = embed if config["tie_word_embeddings"] else take("lm_head.")["weight"]
    assert used == set(weights), f"tensors that nothing reads: {sorted(set(weights) - used)}"
    return F.linear(x, head)


def transformers_logits(folder, tokens):
    """The model as AutoModelForCausalLM loads it, with its class, in float32."""
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = info[key] if isinstance(info, dict) else getattr(info, key)
        left = [k for k in found if k != "lm_head.weight" or not model.config.tie_word_embeddings]
        assert not left, f"{key}: {left}"
    with torch.no_grad():
        return model.eval()(tokens.long()[None], use_cache=False).logits[0], type(model).__name__


def tokenizer_check(folder, tokens):
    """The exported tokenizer reads the text of the tokens as these tokens."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.decode(tokens[1:], clean_up_tokenization_spaces=False)
    got = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert got == tokens[1:].tolist(), "the tokenizer gives other tokens"
    return len(text)


def main(root):
    try:
        import transformers
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, python {sys.version.split()[0]}\n")
    except ImportError:
        transformers = None
        print(f"torch {torch.__version__}, no transformers: plain PyTorch only\n")
    print(f"{'model':18}{'dtype':10}{'loaded by':36}{'error':>10}{'limit':>9}  greedy")
    failed = False
    for name in sorted(n for n in os.listdir(root) if os.path.isfile(os.path.join(root, n, "config.json"))):
        folder = os.path.join(root, name)
        with open(os.path.join(folder, "config.json")) as f:
            config = json.load(f)
        expected = load_safetensors(os.path.join(root, name + ".safetensors"))
        tokens, want = expected["tokens"], expected["logits"].double()
        ways = [lambda: (plain(folder, tokens), "plain PyTorch, float64")]
        # flash-linear-attention's class is not in Transformers.
        if transformers and config["model_type"] != "samba":
            ways.append(lambda: transformers_logits(folder, tokens))
        for way in ways:
            try:
                got, by = way()
                got = got.double()
                error = ((got - want).abs().max() / want.abs().max()).item()
                same = int((got.argmax(-1) == want.argmax(-1)).sum())
                limit = LIMITS[config["dtype"]]
                good = error <= limit
                print(f"{name:18}{config['dtype']:10}{by:36}{error:10.1e}{limit:9.0e}  {same}/{len(tokens)}{'' if good else '  FAILED'}")
            except Exception as e:  # the table goes on
                good = False
                print(f"{name:18}{config['dtype']:10}FAILED: {type(e).__name__}: {e}")
            failed |= not good
        if transformers:
            try:
                print(f"{name:18}{'':10}{'AutoTokenizer':36}{tokenizer_check(folder, tokens)} characters, the same tokens")
            except Exception as e:
                failed = True
                print(f"{name:18}{'':10}AutoTokenizer FAILED: {type(e).__name__}: {e}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
