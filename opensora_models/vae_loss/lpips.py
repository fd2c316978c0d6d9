"""LPIPS: the distance of two pictures as VGG16 sees them (arXiv 1801.03924)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from opensora_models.weights import fit_weights, read_weights
from schemas.errors import OsoraError

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of VGG16's five stages, each followed by a pooling."""
VGG16_FILE = "vgg16-397923af.pth"
HOW_TO_GET = (
    "The heads are vgg.pth of https://github.com/richzhang/PerceptualSimilarity (lpips/weights/v0.1). A file with the heads "
    f"alone is completed with https://download.pytorch.org/models/{VGG16_FILE}, which has to lie beside it or in "
    "PyTorch's hub cache (hub/checkpoints); a file with the whole LPIPS state dict needs nothing else."
)


class Features(nn.Module):
    """VGG16's convolutions in five slices; a state-dict key is `slice<n>.<place among VGG16's features>`."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        place, before = 0, 3
        for number, (width, count) in enumerate(zip(widths, CONVOLUTIONS, strict=True), start=1):
            stage = nn.Sequential()
            if number > 1:
                stage.add_module(str(place), nn.MaxPool2d(2))
                place += 1
            for _ in range(count):
                stage.add_module(str(place), nn.Conv2d(before, width, 3, padding=1))
                stage.add_module(str(place + 1), nn.ReLU())
                place, before = place + 2, width
            self.add_module(f"slice{number}", stage)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the features behind every stage."""
        found = []
        for stage in self.children():
            x_BCHW = stage(x_BCHW)
            found.append(x_BCHW)
        return found


class Scaling(nn.Module):
    """From [-1, 1] to ImageNet's mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the pixels as VGG16 was trained on them."""
        return (x_BCHW - self.shift) / self.scale


class Head(nn.Module):
    """A non-negative weight for each channel; place 0 of the published heads is a dropout, which only their training used."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, 1, H, W)."""
        return self.model(x_BCHW)


class Lpips(nn.Module):
    """Frozen; gradients flow to the pictures alone. State-dict keys are those of the published metric."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = Features(widths)
        for number, width in enumerate(widths):
            self.add_module(f"lin{number}", Head(width))
        self.requires_grad_(False)
        self.eval()

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """Return the distance of each pair of pictures in [-1, 1], (B,), float32."""
        features = zip(self.features(a_BCHW), self.features(b_BCHW), strict=True)
        total = torch.zeros(len(a_BCHW), device=a_BCHW.device)
        for number, (a, b) in enumerate(features):
            difference = (_unit(a) - _unit(b)).square()
            total = total + self.get_submodule(f"lin{number}")(difference).float().mean(dim=(1, 2, 3))
        return total

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return VGG16's features of pictures in [-1, 1], stage by stage."""
        return self.net(self.scaling_layer(x_BCHW))


def _unit(x_BCHW: Tensor) -> Tensor:
    """Scale the features of each pixel to length 1."""
    x_BCHW = x_BCHW.float()
    return x_BCHW / (x_BCHW.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def load_lpips(source: str, key: str) -> Lpips:
    """Return LPIPS with the weights at `source`, the value of the recipe's `key`: a file, a folder or a cached hub name.

    Raises OsoraError, with how to get them, where they are not on this machine or do not fit.
    """
    path = find_lpips(source)
    if path is None:
        raise OsoraError(f"{key} = {source!r}: no LPIPS weights here, and nothing is downloaded. {HOW_TO_GET}")
    state = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith("lins.")}
    if not any(name.startswith("net.") for name in state):
        state |= _vgg16_beside(path, key)
    model = Lpips()
    fit_weights(model, state, path, allow_missing=["scaling_layer.*"])
    return model


def find_lpips(source: str) -> Path | None:
    """Return where the weights are: `source` as a file or folder, or the cached snapshot of a hub name; None for nowhere."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source.count("/") == 1 and not source.startswith((".", "~", "/")):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source, "model.safetensors")
        return Path(cached) if isinstance(cached, str) else None
    return None


def _vgg16_beside(heads: Path, key: str) -> dict[str, Tensor]:
    """Return VGG16's convolutions under LPIPS's names, from the file of torchvision's weights."""
    places = (heads.parent / VGG16_FILE, Path(torch.hub.get_dir()) / "checkpoints" / VGG16_FILE)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise OsoraError(f"{key}: {heads} has the heads of LPIPS and not its VGG16. {HOW_TO_GET}")
    state = read_weights(found)
    with torch.device("meta"):
        wanted = [name for name in Lpips().state_dict() if name.startswith("net.")]
    theirs = {name: f"features.{name.split('.', 2)[2]}" for name in wanted}
    if absent := [name for name in theirs.values() if name not in state]:
        raise OsoraError(f"{found}: lacks {absent[0]}, so it is no VGG16 of torchvision. {HOW_TO_GET}")
    return {name: state[other] for name, other in theirs.items()}
