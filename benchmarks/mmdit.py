"""Forward and backward of the MMDiT against diffusers' FluxTransformer2DModel of the same size.

    python -m benchmarks.mmdit [--device cpu|cuda] [--threads 1] [--fused] ...

Runs alternate (ours, theirs, ours, ...), and the figure is the median of the ratios of neighbours, so that a machine that
slows down for a while slows both. Below 1 is faster than diffusers.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from opensora_models.mmdit.model import MMDiT
from schemas.denoiser.mmdit import MMDiTConfig

TEXT_WIDTH, VECTOR_WIDTH, TOKEN_WIDTH = 128, 64, 64


def models(args: argparse.Namespace) -> tuple[MMDiT, FluxTransformer2DModel]:
    """Return both models, after checking that they have the same number of parameters."""
    head = args.hidden // args.heads
    axes = (head - 2 * (head // 8 * 3), head // 8 * 3, head // 8 * 3)
    config = MMDiTConfig(
        in_channels=TOKEN_WIDTH,
        vec_in_dim=VECTOR_WIDTH,
        context_in_dim=TEXT_WIDTH,
        hidden_size=args.hidden,
        num_heads=args.heads,
        depth=args.depth,
        depth_single_blocks=args.single,
        axes_dim=axes,
        fused_qkv=args.fused,
        use_liger_rope=args.halves,
    )
    ours = MMDiT(config)
    theirs = FluxTransformer2DModel(
        in_channels=TOKEN_WIDTH,
        num_layers=args.depth,
        num_single_layers=args.single,
        attention_head_dim=head,
        num_attention_heads=args.heads,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=VECTOR_WIDTH,
        axes_dims_rope=axes,
    )
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    if counts[0] != counts[1]:
        raise SystemExit(f"not the same model: {counts[0]} parameters against {counts[1]}")
    print(f"{counts[0] / 1e6:.2f} M parameters each")
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    return ours.to(args.device, dtype), theirs.to(args.device, dtype)


def steps(args: argparse.Namespace) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return one forward and backward of each model on the same inputs."""
    ours, theirs = models(args)
    generator = torch.Generator().manual_seed(0)
    dtype = next(ours.parameters()).dtype
    batch, side = args.batch, round(args.image_tokens**0.5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(args.device, dtype)

    img, txt = normal(batch, side * side, TOKEN_WIDTH), normal(batch, args.text_tokens, TEXT_WIDTH)
    vector, target = normal(batch, VECTOR_WIDTH), normal(batch, side * side, TOKEN_WIDTH)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float().to(args.device)
    txt_ids = torch.zeros(args.text_tokens, 3, device=args.device)
    times = torch.full((batch,), 0.5, device=args.device, dtype=dtype)
    batch_ids, batch_txt_ids = ids.expand(batch, -1, -1), txt_ids.expand(batch, -1, -1)

    def backward(model: nn.Module, out: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.mse_loss(out, target).backward()

    def run_ours() -> None:
        backward(ours, ours(img, batch_ids, txt, batch_txt_ids, times, vector))

    def run_theirs() -> None:
        out = theirs(
            hidden_states=img,
            encoder_hidden_states=txt,
            pooled_projections=vector,
            timestep=times,
            img_ids=ids,
            txt_ids=txt_ids,
            return_dict=False,
        )[0]
        backward(theirs, out)

    return run_ours, run_theirs


def seconds(step: Callable[[], None], device: str) -> float:
    """Return the duration of one step, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--single", type=int, default=4)
    parser.add_argument("--image-tokens", type=int, default=256)
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--fused", action="store_true", help="one projection for q, k and v")
    parser.add_argument("--halves", action="store_true", help="the rotary layout of Open-Sora 2.0 instead of Flux's")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    ours, theirs = steps(args)
    for _ in range(3):
        ours()
        theirs()
    pairs = [(seconds(ours, args.device), seconds(theirs, args.device)) for _ in range(args.rounds)]
    machine = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}, {args.threads} threads"
    median_ours, median_theirs = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{machine}: osora {median_ours:.2f} ms, diffusers {median_theirs:.2f} ms")
    print(f"median ratio {statistics.median(one / two for one, two in pairs):.3f}")


if __name__ == "__main__":
    main()
