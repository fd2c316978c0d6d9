"""The adversary that an autoencoder is trained against."""

from typing import Literal

from pydantic import Field

from schemas.base import Schema, cost

NUMERICS = cost("changes_numerics")


class GenLossConfig(Schema):
    """What the autoencoder gains from deceiving the discriminator; the weight adapts to the reconstruction's gradient."""

    gen_start: int = Field(0, ge=0, description="Update from which the term counts.", json_schema_extra=NUMERICS)
    disc_factor: float = Field(
        1.0, ge=0, description="Scale of the term, before its adaptive weight.", json_schema_extra=NUMERICS
    )
    disc_weight: float = Field(
        0.5,
        ge=0,
        description="Scale of the adaptive weight (VQGAN, arXiv 2012.09841, eq. 7).",
        json_schema_extra=NUMERICS,
    )


class DiscLossConfig(Schema):
    """What the discriminator is trained on: real clips against reconstructions."""

    disc_start: int = Field(
        0, ge=0, description="Update from which the discriminator learns.", json_schema_extra=NUMERICS
    )
    disc_factor: float = Field(1.0, ge=0, description="Scale of the loss.", json_schema_extra=NUMERICS)
    disc_loss_type: Literal["hinge", "vanilla", "wgan-gp"] = Field(
        "hinge", description="Form of the loss.", json_schema_extra=NUMERICS
    )


class DiscOptimConfig(Schema):
    """AdamW of the discriminator; clipping and accumulation are the autoencoder's."""

    lr: float = Field(1e-4, gt=0, description="Learning rate after warm-up.", json_schema_extra=NUMERICS)
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="Decay of the gradient's first and second moment.", json_schema_extra=NUMERICS
    )
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.", json_schema_extra=NUMERICS)
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay per update.", json_schema_extra=NUMERICS)
    warmup_steps: int = Field(
        0, ge=0, description="Updates over which the rate rises linearly to lr.", json_schema_extra=NUMERICS
    )


class DiscriminatorConfig(Schema):
    """A 3-D patch discriminator (upstream's N_Layer_discriminator_3D), its losses and its optimizer."""

    from_pretrained: str | None = Field(
        None, description="Weights to start from; unset for random weights.", json_schema_extra=NUMERICS
    )
    ndf: int = Field(
        64,
        ge=1,
        description="Width of the first layer; it doubles per layer, up to 8 times.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    n_layers: int = Field(
        5,
        ge=1,
        description="Layers that halve the picture.",
        json_schema_extra=cost("breaks_resume", "changes_memory"),
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Share of features zeroed while training.", json_schema_extra=NUMERICS
    )
    alter_train_gen_disc: bool = Field(
        False,
        description="Train autoencoder and discriminator on alternate batches instead of both on each.",
        json_schema_extra=cost("breaks_resume", "changes_numerics"),
    )
    gen_loss: GenLossConfig = Field(GenLossConfig.model_construct(), description="The autoencoder's adversarial term.")
    disc_loss: DiscLossConfig = Field(DiscLossConfig.model_construct(), description="The discriminator's loss.")
    optim: DiscOptimConfig = Field(DiscOptimConfig.model_construct(), description="The discriminator's optimizer.")
