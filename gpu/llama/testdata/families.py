"""A second implementation of the model families, in PyTorch with float64 and autograd, read from config.json and
model.safetensors alone. It shares no code with the Go one.

usage: families.py DIR < {"input_ids": [...], "cu_seqlens": [...], "coef": [one per sequence]}
prints {"nll": [one per token], "grads": {parameter: [...]}}, the gradient being that of sum coef * nll.
"""
import json
import math
import struct
import sys

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def load(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    weights = {}
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            assert t["dtype"] == "F32", t
            a, b = (8 + size + o for o in t["data_offsets"])
            weights[name] = torch.frombuffer(bytearray(data[a:b]), dtype=torch.float32).reshape(t["shape"]).double().requires_grad_()
    return weights


class Model:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.glm = config["model_type"] == "chatglm"
        if self.glm:
            self.layers, self.groups, self.e = config["num_layers"], config["multi_query_group_num"], config["kv_channels"]
            self.eps = config["layernorm_epsilon"]
        else:
            self.layers, self.groups = config["num_hidden_layers"], config["num_key_value_heads"]
            self.e = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            self.eps = config["rms_norm_eps"]
        self.heads = config["num_attention_heads"]

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def norm(self, x, name):
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.w[name + ".weight"]

    def rotary(self, length):
        """Angles [length, pairs] and the factor on sine and cosine."""
        c, width = self.c, self.e
        theta = c.get("rope_theta", 10000.0)
        if self.glm:
            width, theta = self.e // 2, 10000.0 * c.get("rope_ratio", 1)
        s = c.get("rope_scaling") or {}
        kind, k = s.get("rope_type", s.get("type")), s.get("factor")
        old = c.get("max_position_embeddings")
        if kind != "dynamic":  # in Hugging Face it scales from max_position_embeddings, whatever else the file says
            old = s.get("original_max_position_embeddings", old)
        exponent = torch.arange(width // 2) * 2.0 / width
        if kind == "dynamic" and length > old:
            theta *= (k * length / old - k + 1) ** (width / (width - 2))
        f, factor = theta ** -exponent, 1.0
        if kind == "linear":
            f = f / k
        if kind == "llama3":
            wave = 2 * math.pi / f
            mix = ((old / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])).clamp(0, 1)
            f = mix * f + (1 - mix) * f / k
        if kind == "yarn":
            # The pair that makes `turns` turns within the old context, by solving old * theta^(-2i/width) = 2 pi turns.
            place = lambda turns: width / 2 * math.log(old / (2 * math.pi * turns)) / math.log(theta)
            first = max(math.floor(place(s.get("beta_fast", 32))), 0)
            last = min(math.ceil(place(s.get("beta_slow", 1))), width - 1)
            slow = ((torch.arange(width // 2) - first) / (last - first if last != first else 0.001)).clamp(0, 1)
            f = f * (1 - slow) + f / k * slow
            factor = 1 + 0.1 * math.log(k)
        return torch.outer(torch.arange(length).double(), f), factor

    def rotate(self, x, angles, factor):  # x [T, heads, e]
        cos, sin = factor * angles.cos()[:, None], factor * angles.sin()[:, None]
        if self.glm:
            turning, rest = x[..., :self.e // 2], x[..., self.e // 2:]
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
            return torch.cat((turned, rest), -1)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def window(self, layer):
        c = self.c
        if c["model_type"] == "mistral" or c.get("use_sliding_window") and layer >= c["max_window_layers"]:
            return c["sliding_window"]
        return None

    def attention(self, x, layer, p):
        t = len(x)
        if self.glm:
            sizes = [self.heads * self.e, self.groups * self.e, self.groups * self.e]
            q, k, v = self.linear(x, p + "self_attention.query_key_value").split(sizes, -1)
        else:
            q, k, v = (self.linear(x, p + "self_attn." + n) for n in ("q_proj", "k_proj", "v_proj"))
        q, k, v = q.view(t, self.heads, self.e), k.view(t, self.groups, self.e), v.view(t, self.groups, self.e)
        if self.c["model_type"] == "qwen3":
            q, k = self.norm(q, p + "self_attn.q_norm"), self.norm(k, p + "self_attn.k_norm")
        angles, factor = self.rotary(t)
        q, k = self.rotate(q, angles, factor), self.rotate(k, angles, factor)
        share = self.heads // self.groups
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        scores = torch.einsum("the,she->hts", q, k) / math.sqrt(self.e)
        distance = torch.arange(t)[:, None] - torch.arange(t)[None]
        seen = distance >= 0
        if self.window(layer) is not None:
            seen &= distance < self.window(layer)
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        y = torch.einsum("hts,she->the", weights, v).reshape(t, -1)
        return self.linear(y, p + ("self_attention.dense" if self.glm else "self_attn.o_proj"))

    def feed_forward(self, x, p):
        if self.glm:
            gate, up = self.linear(x, p + "mlp.dense_h_to_4h").chunk(2, -1)
            return self.linear(F.silu(gate) * up, p + "mlp.dense_4h_to_h")
        gate, up = self.linear(x, p + "mlp.gate_proj"), self.linear(x, p + "mlp.up_proj")
        return self.linear(F.silu(gate) * up, p + "mlp.down_proj")

    def logits(self, ids):
        if self.glm:
            table, final, head = "transformer.embedding.word_embeddings", "transformer.encoder.final_layernorm", "transformer.output_layer"
            place = "transformer.encoder.layers.%d."
        else:
            table, final, head, place = "model.embed_tokens", "model.norm", "lm_head", "model.layers.%d."
        if self.c.get("tie_word_embeddings"):
            head = table
        x = self.w[table + ".weight"][ids]
        for i in range(self.layers):
            p = place % i
            x = x + self.attention(self.norm(x, p + "input_layernorm"), i, p)
            x = x + self.feed_forward(self.norm(x, p + "post_attention_layernorm"), p)
        return self.linear(self.norm(x, final), head)


def main():
    directory, request = sys.argv[1], json.load(sys.stdin)
    with open(directory + "/config.json") as f:
        model = Model(json.load(f), load(directory + "/model.safetensors"))
    nll, loss = [], torch.zeros(())
    cu = request["cu_seqlens"]
    for a, b, coef in zip(cu, cu[1:], request["coef"]):
        ids = torch.tensor(request["input_ids"][a:b])
        one = F.cross_entropy(model.logits(ids)[:-1], ids[1:], reduction="none")
        loss = loss + coef * one.sum()
        nll += one.tolist() + [0.0]
    loss.backward()
    grads = {n: w.grad.flatten().tolist() for n, w in model.w.items()}
    json.dump({"nll": nll, "grads": grads}, sys.stdout)


main()
