"""Opens engine directories: every file is checked before anything is computed with it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exp3rt_trt import _core
from exp3rt_trt.engines.cache import cache_dir, exclusive, is_verified, remember_verified
from exp3rt_trt.engines.manifest import MANIFEST, TOKENIZER, WEIGHTS, Manifest, Target
from exp3rt_trt.engines.targets import LLM_API, TENSORRT_LLM
from exp3rt_trt.engines.trtllm.loading import check_runs_here
from exp3rt_trt.engines.weights_file import StoredTensor, read_header, sha256_of
from exp3rt_trt.errors import EngineError

if TYPE_CHECKING:
    from exp3rt_trt.engines.manifest import FileRecord
    from exp3rt_trt.engines.weights_file import Progress


@dataclass(frozen=True)
class Engine:
    """An engine directory that was found whole and fit for this machine.

    Attributes:
        path: The directory.
        manifest: What it says about itself.
        tensors: Where each tensor lies in the weights file; none of an engine for a GPU.
    """

    path: Path
    manifest: Manifest
    tensors: tuple[StoredTensor, ...]

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Engine:
        """Opens an engine directory.

        Sizes are compared always. A file's sha256 is computed unless this very state of the file was
        verified before, which the cache remembers; so the first opening reads the whole file, later ones
        take no time.

        Args:
            path: The directory.

        Returns:
            The engine; no weights are loaded yet.

        Raises:
            EngineError: A file is missing, truncated or altered, or the engine is for another machine or
                version.

        Example:
            >>> Engine.open("engines/smollm2-135m").manifest.dtype
            'bf16'
        """
        directory = Path(path)
        if not directory.is_dir():
            raise EngineError(f"{directory}: no such engine directory")
        if not (directory / MANIFEST).exists():
            raise EngineError(f"{directory}: no {MANIFEST}: not an engine; build one with `exp3rt-trt build`")
        manifest = Manifest.load(directory / MANIFEST)
        on_cpu = isinstance(manifest.target, Target)
        if isinstance(manifest.target, Target):
            _check_target(directory, manifest.target)
        else:
            check_runs_here(directory, manifest)
        for name, record in manifest.files.items():
            _verify(directory / name, record)
        return Engine(directory, manifest, tuple(read_header(directory / WEIGHTS)) if on_cpu else ())

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], dtype: str = "bf16", *, progress: Progress | None = None
    ) -> Engine:
        """Opens an engine, or builds one from a checkpoint once and keeps it in the cache.

        Args:
            name_or_path: An engine directory, or what `build_engine` takes: the name of a base student, a
                checkpoint directory, a .gguf file, a hub repository.
            dtype: Of the weights of an engine that is built: "fp32", "bf16" or "int8".
            progress: Of the build; see `build_engine`.

        Returns:
            The engine.

        Raises:
            EngineError: The engine cannot be opened.
            BuildError: The checkpoint cannot be found, or no engine can be built from it.
        """
        if (Path(name_or_path) / MANIFEST).exists():
            return Engine.open(name_or_path)
        from exp3rt_trt.engines.build import build_engine  # noqa: PLC0415  (not needed to open)
        from exp3rt_trt.engines.records import BUILDER  # noqa: PLC0415
        from exp3rt_trt.engines.sources import fingerprint, resolve  # noqa: PLC0415

        name = os.fspath(name_or_path)
        checkpoint = resolve(name)
        version = BUILDER.rpartition(" ")[2]
        slug = re.sub(r"[^\w.-]+", "-", name.rstrip("/").rpartition("/")[2]).strip(".-") or "engine"
        out = cache_dir() / "engines" / f"{slug}-{dtype}-{version}-{fingerprint(checkpoint)[:16]}"
        with exclusive(out.with_name(f".{out.name}.lock")):
            if out.exists():
                try:
                    return Engine.open(out)
                except EngineError:
                    pass  # of the cache: built anew
            build_engine(name, out, dtype, progress=progress)
            return Engine.open(out)

    @property
    def weights_path(self) -> Path:
        """The weights file."""
        return self.path / WEIGHTS

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer, for `tokenizers.Tokenizer.from_file`."""
        return self.path / TOKENIZER

    def core_tensors(self) -> list[_core.TensorEntry]:
        """Describes the tensors to the extension."""
        return [
            _core.TensorEntry(tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.num_bytes)
            for tensor in self.tensors
        ]

    def core_config(self) -> _core.ModelConfig:
        """Describes the model to the extension."""
        dims = self.manifest.model
        return _core.ModelConfig(
            vocab_size=dims.vocab_size,
            hidden_size=dims.hidden_size,
            intermediate_size=dims.intermediate_size,
            num_layers=dims.num_layers,
            num_heads=dims.num_heads,
            num_kv_heads=dims.num_kv_heads,
            head_dim=dims.head_dim,
            rms_norm_eps=dims.rms_norm_eps,
            max_context=dims.max_context,
            dtype=self.manifest.dtype,
        )


def _check_target(directory: Path, target: Target) -> None:
    where = directory / MANIFEST
    if target.kind != "cpu":
        raise EngineError(
            f"{where}: target.kind: this version runs engines of cpu, {TENSORRT_LLM} and {LLM_API}, "
            f"this one is for {target.kind!r}"
        )
    have = _core.cpu_isa()
    try:
        fits = _core.isa_at_least(have, target.isa)
    except ValueError as error:
        raise EngineError(f"{where}: target.isa: {error}") from error
    if not fits:
        raise EngineError(
            f"{directory}: the engine needs {target.isa}, this machine has {have}; rebuild it with "
            "`exp3rt-trt build --target cpu` on this machine"
        )


def _verify(path: Path, record: FileRecord) -> None:
    try:
        size = path.stat().st_size
        if size != record.size:
            raise EngineError(
                f"{path}: {size} bytes, expected {record.size}: truncated or altered; rebuild the engine"
            )
        if is_verified(path, record.sha256):
            return
        found = sha256_of(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if found != record.sha256:
        raise EngineError(f"{path}: altered: sha256 {found}, expected {record.sha256}; rebuild the engine")
    remember_verified(path, record.sha256)
