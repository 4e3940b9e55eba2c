#!/usr/bin/env python3
"""A training step of DeepSeek-V2's shape in PyTorch's own operators, its whole backward pass one call of the autograd engine, to
measure farskip's backward pass against: bf16, random weights, one GPU, the fused operators that PyTorch has (norms, attention,
grouped products, losses). Prints one JSON line with the medians of forward and backward, by CUDA events.

  bench/autograd_step.py CONFIG.json [--layers N] [--batch 8] [--length 2048] [--repeat 7] [--compile]
"""
import json
import statistics

import step_options
import torch
import torch.nn.functional as F


class Layer(torch.nn.Module):
    def __init__(self, c, dense):
        super().__init__()
        self.c, self.dense = c, dense
        hidden, heads = c["hidden_size"], c["num_attention_heads"]
        self.nope, self.rotated, self.value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        weight = lambda *shape: torch.nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)
        self.attention_norm, self.mlp_norm = (torch.nn.Parameter(torch.ones(hidden)) for _ in range(2))
        self.latent_norm = torch.nn.Parameter(torch.ones(c["kv_lora_rank"]))
        self.q = weight(heads * (self.nope + self.rotated), hidden)
        self.kv_a = weight(c["kv_lora_rank"] + self.rotated, hidden)
        self.kv_b = weight(heads * (self.nope + self.value), c["kv_lora_rank"])
        self.o = weight(hidden, heads * self.value)
        width = c["intermediate_size"] if dense else c["moe_intermediate_size"] * c["n_shared_experts"]
        self.gate_up, self.down = weight(2 * width, hidden), weight(hidden, width)
        if not dense:
            experts, width = c["n_routed_experts"], c["moe_intermediate_size"]
            self.router = weight(experts, hidden)
            self.expert_gate_up = weight(experts, hidden, 2 * width)
            self.expert_down = weight(experts, width, hidden)

    def rotate(self, x, cos, sin):
        first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten(-2).to(x.dtype)

    def attention(self, x, cos, sin):
        batch, length, _ = x.shape
        heads = self.c["num_attention_heads"]
        q = F.linear(x, self.q).view(batch, length, heads, -1)
        latent, rotated = F.linear(x, self.kv_a).split((self.c["kv_lora_rank"], self.rotated), -1)
        kv = F.linear(F.rms_norm(latent, latent.shape[-1:], self.latent_norm, 1e-6), self.kv_b).view(batch, length, heads, -1)
        q_nope, q_rotated = q.split((self.nope, self.rotated), -1)
        k_nope, v = kv.split((self.nope, self.value), -1)
        q = torch.cat((q_nope, self.rotate(q_rotated, cos, sin)), -1)
        rotated = self.rotate(rotated.unsqueeze(2), cos, sin).expand(-1, -1, heads, -1)
        k = torch.cat((k_nope, rotated), -1)
        out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        return F.linear(out.transpose(1, 2).flatten(2), self.o)

    def swiglu(self, x):
        gate, up = F.linear(x, self.gate_up).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down)

    def routed(self, x):
        top_k = self.c["num_experts_per_tok"]
        scores = F.linear(x.float(), self.router.float()).softmax(-1)
        weights, chosen = scores.topk(top_k, -1)
        order = chosen.flatten().argsort(stable=True)
        ends = torch.zeros(scores.shape[1], dtype=torch.int32, device=x.device).scatter_add_(
            0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=torch.int32)).cumsum(0, dtype=torch.int32)
        rows = x.index_select(0, order // top_k)
        gate, up = torch._grouped_mm(rows, self.expert_gate_up, offs=ends).chunk(2, -1)
        out = torch._grouped_mm(F.silu(gate) * up, self.expert_down, offs=ends)
        back = out.index_select(0, order.argsort()).view(-1, top_k, x.shape[1])
        return torch.einsum("tkh,tk->th", back, weights.to(x.dtype))

    def forward(self, x, cos, sin):
        x = x + self.attention(F.rms_norm(x, x.shape[-1:], self.attention_norm, 1e-6), cos, sin)
        normed = F.rms_norm(x, x.shape[-1:], self.mlp_norm, 1e-6)
        out = self.swiglu(normed)
        return x + out if self.dense else x + out + self.routed(normed.flatten(0, 1)).view_as(x)


class Model(torch.nn.Module):
    def __init__(self, c, layers):
        super().__init__()
        self.c = c
        self.embedding = torch.nn.Parameter(torch.randn(c["vocab_size"], c["hidden_size"]) * 0.02)
        self.layers = torch.nn.ModuleList(Layer(c, i < c["first_k_dense_replace"]) for i in range(layers))
        self.norm = torch.nn.Parameter(torch.ones(c["hidden_size"]))
        self.head = torch.nn.Parameter(torch.randn(c["vocab_size"], c["hidden_size"]) * c["hidden_size"] ** -0.5)

    def forward(self, ids, cos, sin):
        x = F.embedding(ids, self.embedding)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.linear(F.rms_norm(x, x.shape[-1:], self.norm, 1e-6), self.head)
        return F.cross_entropy(logits.flatten(0, 1).float(), ids.roll(-1, 1).flatten())


def main():
    options = step_options.parse(__doc__)
    with open(options.config) as file:
        config = json.load(file)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Model(config, options.layers or config["num_hidden_layers"])
        ids = torch.randint(0, config["vocab_size"], (options.batch, options.length))
        pairs = config["qk_rope_head_dim"] // 2
        angles = torch.outer(torch.arange(options.length, dtype=torch.float32),
                             10000.0 ** (-torch.arange(pairs, dtype=torch.float32) / pairs))
    cos, sin = angles.cos()[None, :, None], angles.sin()[None, :, None]
    run = torch.compile(model) if options.compile else model
    times = []
    for _ in range(3 + options.repeat):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        marks[0].record()
        loss = run(ids, cos, sin)
        marks[1].record()
        loss.backward()
        marks[2].record()
        torch.cuda.synchronize()
        model.zero_grad()
        times.append([marks[i].elapsed_time(marks[i + 1]) * 1e-3 for i in range(2)])
    forward, backward = (sorted(column) for column in zip(*times[3:]))
    step = statistics.median(sum(parts) for parts in times[3:])
    print(json.dumps({
        "obtained": "measured", "program": "PyTorch operators and autograd", "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(), "compiled": options.compile, "layers": len(model.layers),
        "tokens": options.batch * options.length, "step_seconds": step,
        "tokens_per_second": options.batch * options.length / step, "forward_seconds": statistics.median(forward),
        "backward_seconds": statistics.median(backward), "backward_seconds_min": backward[0],
        "backward_seconds_max": backward[-1]}))


if __name__ == "__main__":
    main()
