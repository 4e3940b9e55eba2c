#!/usr/bin/env python3
"""A step of a model of random weights with Hugging Face transformers, to measure farskip against: bf16, scaled-dot-product
attention, grouped-GEMM experts, one GPU. Prefill, with the head on each sequence's last position, or with --train a loss and its
gradients. Prints one JSON line.

  bench/transformers_step.py CONFIG.json [--train] [--layers N] [--batch 8] [--length 2048] [--repeat 7] [--compile]
"""
import json
import statistics
import time

import step_options
import torch
import transformers


def load(path, layers, train):
    with open(path) as file:
        fields = json.load(file)
    for field in ("auto_map", "quantization_config"):
        fields.pop(field, None)
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.num_hidden_layers = layers or config.num_hidden_layers
    config._attn_implementation, config._experts_implementation = "sdpa", "grouped_mm"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return transformers.AutoModelForCausalLM.from_config(config).train(train)


def main():
    options = step_options.parse(__doc__, train="a loss and its gradients instead of prefill")
    model = load(options.config, options.layers, options.train)
    run = torch.compile(model) if options.compile else model
    ids = torch.randint(0, model.config.vocab_size, (options.batch, options.length), device="cuda")

    def step():
        if options.train:
            run(ids, labels=ids, use_cache=False).loss.backward()
            model.zero_grad()
            return
        with torch.inference_mode():
            run(ids, use_cache=True, logits_to_keep=1)

    seconds = []
    for _ in range(3 + options.repeat):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[3:])
    median = statistics.median(seconds)
    print(json.dumps({
        "obtained": "measured", "program": "transformers " + transformers.__version__, "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(), "step": "forward and backward" if options.train else "prefill", "compiled": options.compile, "layers": model.config.num_hidden_layers,
        "tokens": options.batch * options.length, "step_seconds": median, "step_seconds_min": seconds[0],
        "step_seconds_max": seconds[-1], "tokens_per_second": options.batch * options.length / median}))


if __name__ == "__main__":
    main()
