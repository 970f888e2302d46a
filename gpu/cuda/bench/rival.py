"""One training step of a LLaMA-type model in PyTorch at its best, on the packs of bench: what `bench step` is compared with.

    python3 rival.py --shape 1.3b --tokens 8192
    python3 rival.py --device cpu --shape tiny --tokens 256 --steps 2     (a try without a card)

Its advantages: bfloat16 weights without float32 masters and AdamW fused over them (a third of bench's optimizer traffic),
torch.compile over each layer and the loss, which keeps its logits where they fit, the fastest attention over packed sequences that this PyTorch has (all are timed first: varlen_attn,
flash-attn, flex_attention, cuDNN over a nested tensor, one scaled_dot_product_attention a sequence; where the fastest does not compile
into a layer, the next is taken), loss in chunks over tokens with a target only, activations kept where they fit, and an allocator
whose segments grow. It counts FLOPs as bench does.
"""
import argparse
import inspect
import json
import math
import os
import statistics
import subprocess
import time

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is the name up to PyTorch 2.8
if not any(name in os.environ for name in ALLOCATOR):
    os.environ.update({name: "expandable_segments:True" for name in ALLOCATOR})

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

SHAPES = {  # width, layers, heads, feed-forward, vocabulary
    "tiny": (128, 2, 2, 344, 512),
    "1.3b": (2048, 24, 16, 5504, 32000),
    "7b": (4096, 32, 32, 11008, 32000),
}
VERSION = tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2])


def lengths(tokens):
    """Asks bench, beside this file or on the path, for the lengths of the pack's sequences."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench")
    program = os.environ.get("BENCH") or (here if os.path.exists(here) else "bench")
    return json.loads(subprocess.check_output([program, "packs", "-tokens", str(tokens)]))


def attentions(sizes, device):
    """Returns every way to attend within sequences that works here: name -> f(q, k, v), all [T, H, E]."""
    bounds = torch.tensor([0] + sizes, device=device).cumsum(0).to(torch.int32)
    longest = max(sizes)
    ways = {}

    def plain(q, k, v):
        scores = torch.einsum("qhe,khe->hqk", q, k) / math.sqrt(q.shape[-1])
        n = q.shape[0]
        seen = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
        return torch.einsum("hqk,khe->qhe", scores.masked_fill(~seen, -math.inf).softmax(-1), v)

    def one(q, k, v):
        if VERSION < (2, 0):
            return plain(q, k, v)
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)

    def by_sequence(q, k, v):
        return torch.cat([one(*x) for x in zip(q.split(sizes), k.split(sizes), v.split(sizes))])

    ways["a call a sequence"] = by_sequence
    if device == "cpu":
        return ways
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        def cudnn(q, k, v):
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return by_sequence(q, k, v)

        ways["cuDNN, a call a sequence"] = cudnn
        offsets = bounds.long()

        def nested(q, k, v):  # packed sequences of any length, from PyTorch 2.9 on with a gradient
            q, k, v = (torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=min(sizes), max_seqlen=longest).transpose(1, 2) for x in (q, k, v))
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).values()

        ways["cuDNN, nested"] = nested
    except (ImportError, AttributeError):
        pass
    try:
        from torch.nn.attention.varlen import varlen_attn

        # Later versions take a window instead. Asked beforehand: a compiled layer should meet no exception.
        causal = {"is_causal": True} if "is_causal" in inspect.signature(varlen_attn).parameters else {"window_size": (-1, 0)}

        def varlen(q, k, v):
            return varlen_attn(q, k, v, bounds, bounds, longest, longest, **causal)

        ways["varlen_attn"] = varlen
    except ImportError:
        pass
    for module, name in (("flash_attn_interface", "FlashAttention 3"), ("flash_attn", "FlashAttention 2")):
        try:
            call = __import__(module).flash_attn_varlen_func
        except (ImportError, AttributeError):
            continue

        def flash(q, k, v, call=call):
            y = call(q, k, v, bounds, bounds, longest, longest, causal=True)
            return y[0] if isinstance(y, tuple) else y

        ways[name] = flash
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        document = torch.repeat_interleave(torch.arange(len(sizes), device=device), torch.tensor(sizes, device=device))
        total = sum(sizes)
        mask = create_block_mask(lambda b, h, q, k: (document[q] == document[k]) & (q >= k), None, None, total, total, device=device, _compile=True)
        compiled = torch.compile(flex_attention, dynamic=False)
        ways["flex_attention"] = lambda q, k, v: compiled(*(x.transpose(0, 1)[None] for x in (q, k, v)), block_mask=mask)[0].transpose(0, 1)
    except Exception as e:  # an attention that this PyTorch cannot build is no rival
        print("flex_attention:", e)
    return ways


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def fastest(ways, sizes, heads, width, device, dtype):
    """Times the passes of each way, with FLOPs of pairs under the diagonal as `bench kernels` counts them. Returns those that work,
    the fastest first: [(name, way)]."""
    ranked, tokens = [], sum(sizes)
    flops = 2 * sum(n * n for n in sizes) * heads * width
    for name, f in ways.items():
        x = [torch.randn(tokens, heads, width, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
        try:
            forward, both = [], []
            grad = torch.randn(tokens, heads, width, device=device, dtype=dtype)
            for _ in range(2 if device == "cpu" else 6):
                wait(device)
                began = time.perf_counter()
                y = f(*x)
                wait(device)
                middle = time.perf_counter()
                y.backward(grad)
                wait(device)
                forward.append(middle - began)
                both.append(time.perf_counter() - began)
        except Exception as e:
            print(f"attention by {name}: {e}")
            continue
        back = min(both) - min(forward)
        print(f"attention by {name}: {1e3 * min(forward):.2f} ms forward, {flops / min(forward) / 1e12:.3g} TFLOP/s, {1e3 * back:.2f} ms backward, {2.5 * flops / back / 1e12:.3g} TFLOP/s")
        ranked.append((min(both), name, f))
    if not ranked:
        raise SystemExit("no attention works here")
    return [(name, f) for _, name, f in sorted(ranked, key=lambda x: x[0])]


def norm(x, w):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * w


class Layer(torch.nn.Module):
    def __init__(self, width, heads, inner, attend, **kind):
        super().__init__()
        self.heads, self.attend = heads, attend
        self.norm1, self.norm2 = (torch.nn.Parameter(torch.ones(width, **kind)) for _ in range(2))
        weight = lambda rows, columns: torch.nn.Parameter(torch.randn(rows, columns, **kind) * 0.02)
        self.qkv, self.o = weight(3 * width, width), weight(width, width)
        self.gate_up, self.down = weight(2 * inner, width), weight(width, inner)

    def forward(self, x, cos, sin):
        q, k, v = F.linear(norm(x, self.norm1), self.qkv).view(x.shape[0], 3, self.heads, -1).unbind(1)
        half = q.shape[-1] // 2
        turn = lambda y: torch.cat([y[..., :half] * cos - y[..., half:] * sin, y[..., half:] * cos + y[..., :half] * sin], -1).to(x.dtype)
        x = x + F.linear(self.attend(turn(q), turn(k), v.contiguous()).reshape(x.shape), self.o)
        gate, up = F.linear(norm(x, self.norm2), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--shape", default="1.3b", choices=SHAPES)
    p.add_argument("--tokens", type=int, default=8192)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--device", default="cuda")
    p.add_argument("--keep", default="auto", choices=["auto", "all", "activations", "inputs"], help="auto tries all, then all but logits, then each layer's input")
    p.add_argument("--only", choices=["attention"], help="times the ways of attention, on the pack and on one sequence, and ends")
    p.add_argument("--peak", type=float, help="FLOP/s of the card; as bench goes by its name where it is not given")
    a = p.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no card; --device cpu --shape tiny tries this without one")
    if a.peak is None:
        card = torch.cuda.get_device_name() if a.device == "cuda" else ""
        a.peak = next((peak for name, peak in (("H200", 989e12), ("PCIe", 756e12), ("A100", 312e12)) if name in card), 989e12)
    width, layers, heads, inner, vocab = SHAPES[a.shape]
    dtype = torch.bfloat16 if a.device == "cuda" else torch.float32
    kind = {"device": a.device, "dtype": dtype}
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name() if a.device == 'cuda' else 'processor'}")
    torch.manual_seed(0)
    sizes = lengths(a.tokens)
    ranked = fastest(attentions(sizes, a.device), sizes, heads, width // heads, a.device, dtype)
    if a.only == "attention":
        print("one sequence")
        fastest(attentions([a.tokens], a.device), [a.tokens], heads, width // heads, a.device, dtype)
        return
    blocks = torch.nn.ModuleList(Layer(width, heads, inner, None, **kind) for _ in range(layers))
    embed, head, final = (torch.nn.Parameter(x) for x in (torch.randn(vocab, width, **kind) * 0.02, torch.randn(vocab, width, **kind) * 0.02, torch.ones(width, **kind)))
    parameters = list(blocks.parameters()) + [embed, head, final]
    options = {"fused": True} if a.device == "cuda" and VERSION >= (2, 0) else {}
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, **options)
    calls = list(blocks)
    if a.device == "cuda" and VERSION >= (2, 0):
        for limit in ("recompile_limit", "cache_size_limit"):  # else some releases compile the first eight layers only
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, 1024)
        calls = [torch.compile(b, dynamic=False) for b in blocks]

    ids = torch.randint(vocab, (a.tokens,), device=a.device)
    wanted = torch.cat([torch.arange(n, device=a.device) >= n // 2 for n in sizes])
    places, targets = wanted.nonzero()[:, 0], ids[wanted]
    position = torch.cat([torch.arange(n, device=a.device) for n in sizes])
    angle = position[:, None] * 10000.0 ** (-torch.arange(0, width // heads, 2, device=a.device) / (width // heads))
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def loss_of(x, t):
        return F.cross_entropy(F.linear(norm(x, final), head).float(), t, reduction="sum")

    if a.device == "cuda" and VERSION >= (2, 0):
        loss_of = torch.compile(loss_of, dynamic=False)

    def step(keep):
        x = F.embedding(ids, embed)
        for call in calls:
            x = checkpoint(call, x, cos, sin, use_reentrant=False) if keep == "inputs" else call(x, cos, sin)
        x = x.index_select(0, places)  # before the last norm; its gradient adds rows, that of x[places] sorts them first
        part = loss_of if keep == "all" else lambda *rows: checkpoint(loss_of, *rows, use_reentrant=False)
        loss = sum(part(x[i : i + 4096], targets[i : i + 4096]) for i in range(0, len(places), 4096)) / max(1, len(places))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    keeps = ["all", "activations", "inputs"] if a.keep == "auto" else [a.keep]
    while True:
        (name, attend), keep = ranked[0], keeps[0]
        for b in blocks:
            b.attend = attend
        try:
            seconds = []
            for i in range(a.steps + 2):
                wait(a.device)
                began = time.perf_counter()
                loss = step(keep)
                wait(a.device)
                if i >= 2:
                    seconds.append(time.perf_counter() - began)
            break
        except Exception as e:
            if "out of memory" in str(e):
                if len(keeps) == 1:
                    raise
                keeps.pop(0)
                print(f"keeping {keep} does not fit; less is kept")
            else:
                if len(ranked) == 1:
                    raise
                ranked.pop(0)
                print(f"attention by {name} fails in a step, the next is taken: {e}")
        # Behind the clause, for the exception in it holds what the step had allocated.
        optimizer.zero_grad(set_to_none=True)
        if a.device == "cuda":
            torch.cuda.empty_cache()
    matrices = layers * (4 * width * width + 3 * width * inner)
    pairs = sum(n * n / 2 for n in sizes)
    flops = 6 * (a.tokens * matrices + len(places) * width * vocab) + 12 * pairs * width * layers
    median = statistics.median(seconds)
    print(f"{a.shape}, {len(sizes)} sequences in {a.tokens} tokens, attention by {name}, kept: {keep}, loss {loss.item():.3f}")
    print(f"step: {median:.3f} s (median of {len(seconds)}), {a.tokens / median:.0f} tokens/s, {flops / median / 1e12:.1f} TFLOP/s, model FLOP utilisation {100 * flops / median / a.peak:.1f} %")
    if a.device == "cuda":
        print(f"most memory held: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
