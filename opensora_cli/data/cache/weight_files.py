"""Fingerprints of encoders' weights: of every byte of their files, remembered while size and time of change stay."""

import json
from hashlib import blake2b
from pathlib import Path

from opensora_cli.files import write_text
from opensora_models.hub import how_to_get, local_path
from opensora_models.weights import weight_files
from schemas.errors import OsoraError

_CHUNK = 1 << 22
_TEXT_FILES = ("config.json", "tokenizer*", "special_tokens_map.json", "spiece.model", "vocab.*", "merges.txt")
_WEIGHTS = (("*.safetensors", "*.safetensors.index.json"), ("pytorch_model*.bin", "pytorch_model.bin.index.json"))


class WeightFiles:
    """Hashes weights' files; `memo` is where the hashes are kept with the size and time of change they hold for."""

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        self._known: dict[str, list[int | str]] = {}
        self._learned = False
        if memo.is_file():
            try:
                self._known = json.loads(memo.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise OsoraError(f"{memo}: cannot be read ({error}). Remove it: it only saves time.") from error

    def save(self) -> None:
        """Write what was hashed, if anything was; raises OsoraError when the disk refuses."""
        if self._learned:
            write_text(self._memo, json.dumps(self._known, indent=1) + "\n")

    def autoencoder(self, path: str) -> str:
        """Return the fingerprint of weights as `load_weights` takes them: a file, or a folder with one or with shards."""
        where = local_path(path)
        if not where.exists():
            raise OsoraError(f"ae.from_pretrained = {path!r}: {how_to_get(path)}")
        files, _ = weight_files(where)
        return self._together(files)

    def text_encoder(self, name: str, key: str) -> str:
        """Return the fingerprint of a Hugging Face folder, or of a model in the local hub cache: tokenizer and weights.

        Raises OsoraError where there is none; `key` is the recipe's table, such as text.t5.
        """
        folder = _hugging_face_folder(name, key)
        files = [file for pattern in _TEXT_FILES for file in folder.glob(pattern)]
        weights = next((found for found in (_all(folder, globs) for globs in _WEIGHTS) if found), [])
        if not weights:
            raise OsoraError(f"{key}.from_pretrained = {name!r}: {folder} has no weights (.safetensors or .bin).")
        return self._together(sorted({*files, *weights}))

    def _together(self, files: list[Path]) -> str:
        digest = blake2b(digest_size=16)
        for file in files:
            # One file may be called anything; of several the names say which part each is.
            digest.update((file.name if len(files) > 1 else "").encode() + b"\0" + self._of_file(file).encode())
        return digest.hexdigest()

    def _of_file(self, file: Path) -> str:
        name = str(file.resolve())
        try:
            status = file.stat()
            known = self._known.get(name)
            if known is not None and known[:2] == [status.st_size, status.st_mtime_ns]:
                return str(known[2])
            digest = blake2b(digest_size=16)
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise OsoraError(f"{file}: cannot be read: {error.strerror}") from error
        self._known[name] = [status.st_size, status.st_mtime_ns, digest.hexdigest()]
        self._learned = True
        return digest.hexdigest()


def _all(folder: Path, globs: tuple[str, ...]) -> list[Path]:
    return [file for pattern in globs for file in folder.glob(pattern)]


def _hugging_face_folder(name: str, key: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from transformers.utils.hub import cached_file  # takes seconds, and a folder needs none of it

    try:
        config = cached_file(name, "config.json", local_files_only=True)
    except (OSError, ValueError) as error:
        raise OsoraError(
            f"{key}.from_pretrained = {name!r}: no such folder, and not in the local hub cache. `hf download {name}` fetches it."
        ) from error
    assert config is not None
    return Path(config).parent
