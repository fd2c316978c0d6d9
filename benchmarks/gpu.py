"""Seconds and peak memory of the real sizes on one GPU, with random weights: autoencoders, a training step.

    python -m benchmarks.gpu [vae] [train] [--rounds 3]

Absolute figures, printed with the GPU's name and beside a plain matrix product of the same run; benchmarks/RESULTS.md
keeps them. Sampling is measured by benchmarks.sample_gpu.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from opensora_cli.sampling.denoise import EncodedText
from opensora_models.build import build_autoencoder
from opensora_models.diffusion.latent_packing import image_ids, text_ids
from opensora_models.diffusion.rectified_flow import flow_loss
from opensora_models.mmdit.model import MMDiT
from schemas.recipes import SampleRecipe
from schemas.resolve import resolve

DEVICE, DTYPE = torch.device("cuda"), torch.bfloat16
GIB = 2**30


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes on the GPU, all of it included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_gib() -> float:
    """Return the most memory allocated since the last reset, GiB."""
    return torch.cuda.max_memory_allocated() / GIB


def matrix_product_tflops(size: int = 8192, rounds: int = 20) -> float:
    """Return the speed of a plain bf16 matrix product."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=DTYPE) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b) for _ in range(rounds)) / 1e12


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model in bf16 on the GPU with small random weights."""
    with torch.device("meta"):
        module = make().to(DTYPE)
    module = module.to_empty(device=DEVICE)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_(std=0.02)
    return module.eval().requires_grad_(False)


def random_text(recipe: SampleRecipe) -> EncodedText:
    """Return features as the text encoders give them."""
    return EncodedText(
        torch.randn(1, recipe.text.t5.max_length, recipe.model.context_in_dim, device=DEVICE, dtype=DTYPE),
        torch.randn(1, recipe.model.vec_in_dim, device=DEVICE, dtype=DTYPE),
    )


def vae(rounds: int) -> None:
    """Encode and decode with the autoencoders in their real size."""
    for kind, name in (("Hunyuan", "sample/256px"), ("DC-AE", "sample/high_compression")):
        recipe = resolve(name).recipe
        assert isinstance(recipe, SampleRecipe)
        module = built(lambda recipe=recipe: build_autoencoder(recipe.ae))  # type: ignore[misc]
        for frames, side in ((129, 256), (33, 768)):
            count = frames if module.causal else frames - 1
            x_BCTHW = torch.randn(1, 3, count, side, side, device=DEVICE, dtype=DTYPE)
            with torch.no_grad():
                z_BCTHW = module.encode(x_BCTHW)
                for way, work in (
                    ("encode", lambda x=x_BCTHW, m=module: m.encode(x)),
                    ("decode", lambda z=z_BCTHW, m=module: m.decode(z)),
                ):
                    work()
                    torch.cuda.reset_peak_memory_stats()
                    taken = statistics.median(seconds(work) for _ in range(rounds))
                    print(
                        f"{kind} {way} {count} frames at {side}px: {taken:.2f} s, peak {peak_gib():.1f} GiB", flush=True
                    )
        del module
        torch.cuda.empty_cache()


def train(rounds: int) -> None:
    """Forward and backward of hidden size 3072 at 256px, few enough blocks to fit with fp32 weights and gradients."""
    config = resolve("stage1").recipe.model.model_copy(update={"depth": 4, "depth_single_blocks": 8})
    with DEVICE:
        model = MMDiT(config).train()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"denoiser of hidden size 3072 with 4 + 8 blocks: {parameters / 1e9:.2f} B parameters")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for frames, batch in ((1, 16), (33, 2), (129, 1)):
        latent = (frames - 1) // 4 + 1
        tokens, texts = latent * 16 * 16, 512
        inputs = {
            "img_BND": torch.randn(batch, tokens, config.in_channels, device=DEVICE),
            "img_ids_BN3": image_ids(latent, 32, 32, 2, batch=batch, device=DEVICE),
            "txt_BLD": torch.randn(batch, texts, config.context_in_dim, device=DEVICE),
            "txt_ids_BL3": text_ids(texts, batch=batch, device=DEVICE),
            "timesteps_B": torch.rand(batch, device=DEVICE),
            "y_vec_BD": torch.randn(batch, config.vec_in_dim, device=DEVICE),
        }
        if config.cond_embed:
            inputs["cond_BND"] = torch.randn(batch, tokens, config.in_channels + config.patch_size**2, device=DEVICE)
        if config.guidance_embed:
            inputs["guidance_B"] = torch.full((batch,), 4.0, device=DEVICE)
        target_BND = torch.randn(batch, tokens, config.in_channels, device=DEVICE)

        def step(inputs: dict[str, Tensor] = inputs, target_BND: Tensor = target_BND) -> None:
            with torch.autocast("cuda", DTYPE):
                loss = flow_loss(model(**inputs), target_BND)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        for _ in range(2):
            step()
        torch.cuda.reset_peak_memory_stats()
        taken = statistics.median(seconds(step) for _ in range(rounds))
        flops = train_flops(model, batch, tokens + texts)
        print(
            f"train {frames} frames, batch {batch}, {tokens} + {texts} tokens: {taken:.3f} s, "
            f"{batch * tokens / taken:,.0f} image tokens/s, {flops / taken / 1e12:.0f} TFLOP/s, peak {peak_gib():.1f} GiB",
            flush=True,
        )


def train_flops(model: MMDiT, batch: int, tokens: int) -> float:
    """Return forward and backward: six per weight of a matrix and token, and attention's products."""
    config = model.config
    matrices = sum(
        p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "blocks" in name and "mod" not in name
    )
    # A double block's weights see either text or image, of which both are here: counted by the share of tokens, halves.
    double = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.dim() == 2 and "double_blocks" in name and "mod" not in name
    )
    weights = matrices - double / 2
    attention = 2 * tokens * config.hidden_size * (config.depth + config.depth_single_blocks)
    return 6.0 * batch * tokens * weights + 6.0 * batch * tokens * attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["vae", "train"], help="all of them if left out")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU")
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"bf16 matrix product, 8192 cubed: {matrix_product_tflops():.0f} TFLOP/s", flush=True)
    for name in args.what or ["vae", "train"]:
        {"vae": vae, "train": train}[name](args.rounds)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
