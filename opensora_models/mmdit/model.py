"""The MMDiT denoiser of Flux and Open-Sora 2.0."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opensora_models.layers.recompute import Recompute
from opensora_models.mmdit.blocks import (
    TIMESTEP_FEATURES,
    DoubleStreamBlock,
    LastLayer,
    MLPEmbedder,
    SingleStreamBlock,
    timestep_embedding,
)
from opensora_models.mmdit.rope import Rope, build_rope
from opensora_models.mmdit.step_cache import StepCache
from opensora_models.mmdit.weights import LIKELY_CAUSES
from schemas.denoiser.mmdit import MMDiTConfig
from schemas.errors import OsoraError


class MMDiT(nn.Module):
    """A transformer with double-stream blocks, then single-stream blocks, over packed latents.

    State-dict keys are those of the published Open-Sora 2.0 and Flux checkpoints. Weights are PyTorch's defaults, but for
    the projection of the visual condition, which starts at zero: adding it to a trained model changes nothing at first.
    """

    likely_causes = LIKELY_CAUSES

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        dim, heads = config.hidden_size, config.num_heads
        mlp_dim = int(dim * config.mlp_ratio)
        self.img_in = nn.Linear(config.in_channels, dim)
        self.time_in = MLPEmbedder(TIMESTEP_FEATURES, dim)
        self.vector_in = MLPEmbedder(config.vec_in_dim, dim)
        self.guidance_in = MLPEmbedder(TIMESTEP_FEATURES, dim) if config.guidance_embed else None
        self.cond_in = nn.Linear(config.in_channels + config.patch_size**2, dim) if config.cond_embed else None
        self.txt_in = nn.Linear(config.context_in_dim, dim)
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(dim, heads, mlp_dim, config.qkv_bias, config.fused_qkv) for _ in range(config.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(dim, heads, mlp_dim, config.fused_qkv) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = LastLayer(dim, config.in_channels)
        self.recompute = Recompute()
        self.recomputed_double, self.recomputed_single = range(0), range(0)
        if self.cond_in is not None:
            nn.init.zeros_(self.cond_in.weight)
            nn.init.zeros_(self.cond_in.bias)

    @property
    def units(self) -> list[nn.Module]:
        """The blocks in order: their weights are gathered together where each process holds a part of them."""
        return [*self.double_blocks, *self.single_blocks]

    def set_grad_checkpointing(
        self, double_blocks: int, single_blocks: int, every: int = 1, how: Recompute | None = None
    ) -> None:
        """Recompute activations in the backward pass: of that many blocks of each kind, from the first, every n-th."""
        self.recompute = how or Recompute()
        self.recomputed_double, self.recomputed_single = range(0, double_blocks, every), range(0, single_blocks, every)

    def forward(
        self,
        img_BND: Tensor,
        img_ids_BN3: Tensor,
        txt_BLD: Tensor,
        txt_ids_BL3: Tensor,
        timesteps_B: Tensor,
        y_vec_BD: Tensor,
        cond_BND: Tensor | None = None,
        guidance_B: Tensor | None = None,
        step_cache: StepCache | None = None,
    ) -> Tensor:
        """Return the velocity (B, N, in_channels) of packed latents at `timesteps_B` in [0, 1], 1 being noise.

        Ids, times and guidance stay fp32 in a bf16 model: a time that bf16 rounds is another time.
        `cond_BND` is the packed mask (patch_size^2 features) and then the packed masked latent; it must be given exactly
        if the model has `cond_embed`. `guidance_B` is the raw scale and goes with `guidance_embed` in the same way.
        With a `step_cache` (sampling alone; needs a double block) rows may skip all blocks but the first.
        Raises ValueError where one of them is missing or superfluous.
        """
        self._check_inputs(cond_BND, guidance_B)
        img_BND = self.img_in(img_BND)
        if self.cond_in is not None:
            img_BND = img_BND + self.cond_in(cond_BND)
        txt_BLD = self.txt_in(txt_BLD)
        vec_BD = self.embed_vector(timesteps_B, y_vec_BD, guidance_B)
        act_BD = F.silu(vec_BD)
        rope = self.rope(img_ids_BN3, txt_ids_BL3)

        if step_cache is None:
            return self.final_layer(self._through_blocks(img_BND, txt_BLD, act_BD, rope), vec_BD)
        after_BND, txt_BLD = self.double_blocks[0](img_BND, txt_BLD, act_BD, rope)
        out_BND = step_cache(
            img_BND,
            after_BND,
            lambda rows: self._through_blocks(after_BND[rows], txt_BLD[rows], act_BD[rows], rope.of(rows), first=1),
        )
        return self.final_layer(out_BND, vec_BD)

    def _through_blocks(
        self, img_BND: Tensor, txt_BLD: Tensor, act_BD: Tensor, rope: Rope, *, first: int = 0
    ) -> Tensor:
        """Return the image tokens behind the last block, from those before double block `first`."""
        for i, block in enumerate(self.double_blocks[first:], first):
            if i in self.recomputed_double:
                img_BND, txt_BLD = self.recompute(block, img_BND, txt_BLD, act_BD, rope)
            else:
                img_BND, txt_BLD = block(img_BND, txt_BLD, act_BD, rope)
        x_BSD = torch.cat([txt_BLD, img_BND], 1)
        for i, block in enumerate(self.single_blocks):
            skip = txt_BLD.shape[1] if i == len(self.single_blocks) - 1 else 0
            if i in self.recomputed_single:
                x_BSD = self.recompute(block, x_BSD, act_BD, rope, skip)
            else:
                x_BSD = block(x_BSD, act_BD, rope, skip)
        return x_BSD if self.single_blocks else img_BND

    def embed_vector(self, timesteps_B: Tensor, y_vec_BD: Tensor, guidance_B: Tensor | None = None) -> Tensor:
        """Return what modulates every block: time, guidance and pooled text, added (B, D)."""
        dtype = y_vec_BD.dtype
        vec_BD = self.time_in(timestep_embedding(timesteps_B).to(dtype))
        if self.guidance_in is not None:
            vec_BD = vec_BD + self.guidance_in(timestep_embedding(guidance_B).to(dtype))
        return vec_BD + self.vector_in(y_vec_BD)

    def rope(self, img_ids_BN3: Tensor, txt_ids_BL3: Tensor) -> Rope:
        """Return the rotation tables of the joined tokens, text first."""
        ids_BS3 = torch.cat([txt_ids_BL3, img_ids_BN3], 1)
        config = self.config
        return build_rope(ids_BS3, config.axes_dim, config.theta, interleaved=not config.use_liger_rope)

    def _check_inputs(self, cond_BND: Tensor | None, guidance_B: Tensor | None) -> None:
        if (cond_BND is None) != (self.cond_in is None):
            raise ValueError(_mismatch("cond_BND", "cond_embed", cond_BND is not None))
        if (guidance_B is None) != (self.guidance_in is None):
            raise ValueError(_mismatch("guidance_B", "guidance_embed", guidance_B is not None))


def _mismatch(argument: str, key: str, given: bool) -> str:
    if given:
        return f"MMDiT.forward: {argument} was given, but the model has `model.{key} = false`. Leave it out, or set it to true."
    return f"MMDiT.forward: {argument} is missing, and the model has `model.{key} = true`. Pass it, or set it to false."


def _check(config: MMDiTConfig) -> None:
    if config.hidden_size % config.num_heads:
        raise OsoraError(
            f"model.hidden_size = {config.hidden_size} is no multiple of model.num_heads = {config.num_heads}: "
            "every head has hidden_size / num_heads features. Change one of the two."
        )
    head_dim = config.hidden_size // config.num_heads
    if sum(config.axes_dim) != head_dim or any(dim % 2 for dim in config.axes_dim):
        raise OsoraError(
            f"model.axes_dim = {list(config.axes_dim)}: needs three even numbers that add up to the head width "
            f"hidden_size / num_heads = {head_dim}, and they add up to {sum(config.axes_dim)}."
        )
