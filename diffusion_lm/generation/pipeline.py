"""DiffusionLM: a denoiser, its tokenizer and what its controls have learned; loads, saves and generates."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partialmethod
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import Tensor

from diffusion_lm.common import UserError, device_named, multiplies_bf16, own_defaults
from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import Guidance
from diffusion_lm.control.program import Asset
from diffusion_lm.control.prompt import Prompt
from diffusion_lm.diffusion.clamp import Clamp
from diffusion_lm.diffusion.samplers import Sampler
from diffusion_lm.generation.card import CARD, model_card
from diffusion_lm.generation.decoding import Decoding, Quality
from diffusion_lm.generation.sampling import Generation, Step, generate
from diffusion_lm.model.denoiser import Denoiser, ModelConfig
from diffusion_lm.store import CONFIG, Kind, bundled, load, save, write_whole
from diffusion_lm.text.tokenizer import Tokenizer

KIND = Kind("language model", "diffusion-lm train")
LENGTHS = "length_counts"
"""Name of the histogram of lengths among the weights."""

A = TypeVar("A", bound=Asset)


class DiffusionLM(ModelHubMixin, library_name="diffusion-lm", pipeline_tag="text-generation"):
    """A language model that denoises Gaussian vectors into words, and that controls steer (paper sections 4 and 5).

    Args:
        denoiser: the network; it is put into evaluation mode.
        tokenizer: words in and out.
        lengths: how many training sentences have each length (START and END included), [max_length + 1]; lengths are
            drawn from it where no control sets them.
        folder: where it was loaded from, and where its assets are.
        fields: names of the fields that its sources are made of; none where a source is a text, or it takes none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        lengths: Tensor,
        folder: Path | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        self.denoiser, self.tokenizer, self.folder = denoiser.eval(), tokenizer, folder
        self.fields = tuple(fields)
        self.lengths = lengths.float().cpu()
        self.bf16: bool | None = None
        """Whether generation multiplies in bf16; None: where the hardware does so."""
        self._assets: dict[type[Asset], Any] = {}

    @classmethod
    @own_defaults()
    def new(cls, config: ModelConfig, tokenizer: Tokenizer, lengths: Tensor, fields: Sequence[str] = ()) -> DiffusionLM:
        """An untrained model."""
        return cls(Denoiser(config, tokenizer.vocab_size), tokenizer, lengths, fields=fields)

    @property
    def config(self) -> ModelConfig:
        """The shape of the network."""
        return self.denoiser.config

    @property
    def padded(self) -> bool:
        """Whether every sentence fills the canvas, PAD being a word (the paper's layout)."""
        return self.config.layout == "padded"

    @property
    def max_words(self) -> int:
        """Most words between START and END."""
        return self.config.max_length - 2

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.denoiser.device

    def autocast(self) -> torch.autocast:
        """Products in bf16, if `bf16` says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    @property
    def dtype(self) -> torch.dtype:
        """What generation multiplies in, float32 or bf16; the weights are always kept in float32."""
        enabled = multiplies_bf16(self.device) if self.bf16 is None else self.bf16
        return torch.bfloat16 if enabled else torch.float32

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> DiffusionLM:
        """The same model with its network and assets on another device, or multiplying in another dtype.

        Raises:
            UserError: the dtype is neither float32 nor bf16.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None:
            if dtype not in (torch.float32, torch.bfloat16):
                raise UserError(f"A model multiplies in torch.float32 or torch.bfloat16, not in {dtype}.")
            self.bf16 = dtype == torch.bfloat16
        if device is not None:
            self.denoiser.to(device)
        return self

    # What `to` refuses, by the names that a network has for it.
    half = partialmethod(to, torch.float16)
    double = partialmethod(to, torch.float64)

    def generate(
        self,
        n: int = 1,
        control: Control | Sequence[Control | None] | None = None,
        *,
        source: str | Sequence[str] | None = None,
        quality: Quality | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        clamp: Clamp | None = None,
        guidance: Guidance | None = None,
        guide_scale: float | None = None,
        length_temperature: float | None = None,
        pairs: float | None = None,
        head: float | None = None,
        time_power: float | None = None,
        beams: int | None = None,
        candidates: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        callback: Callable[[Step], None] | None = None,
    ) -> Generation:
        """Write n sentences. What is not given is chosen by what is asked (`Decoding.fitted`).

        Args:
            n: how many.
            control: what is wanted of them, `Attribute("food", "Japanese") & Length(20)`; None for free sentences, a list
                for a target of its own for each.
            source: what they are written from, as `Prompt` has it; a list for one of its own for each sentence.
            quality: "fast", "balanced" or "best", how much time it is worth; None: balanced.
            steps: denoiser calls (the paper decodes with 200).
            sampler: how z_t becomes z_s.
            clamp: what x0_hat commits to.
            guidance: how the control's energy is followed; `Guidance.paper(task)` for the original's way.
            guide_scale: how much a source counts; 1 as the model says, above 1 more; None: 2.
            length_temperature: at which the number of words is drawn where nothing rules it; None: .25 from a source, else 1.
            pairs: how much what stands side by side ties what is drawn; None: 1 where there is a table, 1.5 in few steps.
            head: how much a causal head counts beside the pairs; None: .8 where there is one, in 6 steps or fewer, or as the
                head itself says.
            time_power: power of the steps' equally spaced times; below 1 more steps are near t = 1. None: what fits.
            beams: search for the likeliest text through the causal head and keep so many beginnings of it (docs/chain.md): no
                steps, and little variety; n sentences of which the same is asked are the n best. None: words are drawn.
            candidates: texts that are drawn for each that is wanted; the likeliest by the model's own bound is kept. With beams
                the lengths that are searched; None: 1, with beams 3, with beams and a source 8.
            seed: the same seed, n, batch_size and device give the same sentences.
            batch_size: sentences that are denoised together.
            callback: called after every step with the words that crystallise.

        Returns:
            A `Generation`, a sequence of strings.

        Raises:
            UserError: if the control asks for what this model cannot do, or contradicts itself.
        """
        own = (steps, time_power, sampler, clamp, guidance, guide_scale, length_temperature, pairs, head, quality)
        if source is not None:
            control = _prompted(n, control, source)
        return generate(
            self,
            n,
            control,
            Decoding(*own, beams),
            candidates=candidates,
            seed=seed,
            batch_size=batch_size,
            callback=callback,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the word vectors (as bf16, in which they may be shipped) and of the noise that they are seen in."""
        weight = self.denoiser.embedding.weight.detach().to("cpu", torch.bfloat16)
        settings = f"{self.config.schedule} {self.config.normalize_embeddings} {self.tokenizer.fingerprint}"
        return hashlib.sha256(weight.view(torch.int16).numpy().tobytes() + settings.encode()).hexdigest()[:16]

    def asset_folder(self, kind: type[Asset]) -> Path:
        """Where an asset of this model is kept; a `UserError` if the model was not loaded from a folder."""
        if self.folder is None:
            raise UserError(f"This model was not loaded from a folder, so it has nothing for {kind.name!r}.")
        return self.folder / "controls" / kind.name

    def has(self, kind: type[Asset]) -> bool:
        """Whether such an asset was saved with this model."""
        return self.folder is not None and self.asset_folder(kind).is_dir()

    @own_defaults()
    def asset(self, kind: type[A]) -> A:
        """What was saved with this model for its controls, on its device; a `UserError` if there is none of this model."""
        if kind not in self._assets:
            self._assets[kind] = kind.from_pretrained(self.asset_folder(kind), self.fingerprint)
        found: A = self._assets[kind]
        if isinstance(found, torch.nn.Module):
            found.to(self.device)
        return found

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        config: Any = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **push: Any,
    ) -> str | None:
        """Write config.json, tokenizer.json, model.safetensors, a card and what controls have learned, whole or not at all.

        Args:
            folder: where to; what else is there stays, a card that somebody wrote too, but controls give way to the model's.
            dtype: of the weights in the file; bf16 halves them.
            push_to_hub: whether to upload it too.
            repo_id: of the hub, "user/model"; None: the folder's name.
            config: nothing, as the model has its own; the hub's mixin passes it.
            model_card_kwargs: for `card.model_card`: name, results, figures, dataset.
            **push: for `push_to_hub`.

        Returns:
            The address of the upload, if there was one.

        Raises:
            UserError: the folder cannot be written to.
        """
        folder, own = Path(folder), None if self.folder is None else self.folder / "controls"
        weights = {name: weight.to(dtype) for name, weight in self.denoiser.state_dict().items()}
        settings = {"model": asdict(self.config), "fields": list(self.fields)}

        def more(part: Path) -> None:
            self.tokenizer.save(part)
            if own is not None and own.is_dir() and own.resolve() != (folder / "controls").resolve():
                shutil.copytree(own, part / "controls")
            if (folder / CARD).exists():
                return
            if self.folder is not None and (self.folder / CARD).exists():
                shutil.copyfile(self.folder / CARD, part / CARD)
            else:
                named = {"name": repo_id or folder.name, **(model_card_kwargs or {})}
                write_whole(part / CARD, str(self.generate_model_card(**named)))

        save(folder, KIND, settings, weights | {LENGTHS: self.lengths}, more)
        return self.push_to_hub(repo_id or folder.name, **push) if push_to_hub else None

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **push: Any) -> str:
        """Upload the model, its controls and its card to "user/model" of the hub; what else is given is for its mixin."""
        return super().push_to_hub(repo_id, model_card_kwargs={"name": repo_id, **(model_card_kwargs or {})}, **push)

    def generate_model_card(self, name: str = "this model", **kwargs: Any) -> ModelCard:
        """What stands in README.md, as `card.model_card` has it."""
        return model_card(self, self.folder, name, **kwargs)

    @classmethod
    @own_defaults()
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> DiffusionLM:
        """A bundled model ("e2e-small"), one of a folder, or of the hub ("user/model").

        Args:
            name: which.
            device: where it goes; None: on an accelerator if there is one.
            dtype: what generation multiplies in, float32 or bf16; None: bf16 where the hardware does so.
            revision: of the hub, as its other arguments: branch, tag or commit.
            cache_dir: where downloads are kept.
            token: that the hub knows you by.
            force_download: whether to download what is there already.
            local_files_only: whether to download nothing.

        Raises:
            UserError: if it is missing, truncated, or not a model of this package.
        """
        hub = {"revision": revision, "cache_dir": cache_dir, "token": token}
        folder = find_model(name, **hub, force_download=force_download, local_files_only=local_files_only)
        tokenizer = Tokenizer.load(folder)

        def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> DiffusionLM:
            lengths = tensors.pop(LENGTHS)
            if config["model"].pop("output_prior", False):  # files of older models say false
                raise ValueError("it has an output prior, which is no longer known")
            denoiser = Denoiser(ModelConfig(**config["model"]), tokenizer.vocab_size)
            denoiser.load_state_dict({name: weight.float() for name, weight in tensors.items()})
            return DiffusionLM(denoiser, tokenizer, lengths, folder, config.get("fields", ()))

        return load(folder, KIND, build).to(device or device_named("auto"), dtype)


def _prompted(
    n: int, control: Control | Sequence[Control | None] | None, source: str | Sequence[str]
) -> Control | list[Control | None]:
    """What is asked of n sentences, and that they are written from a source; a `UserError` if there is not one for each."""
    one = Prompt(source) if isinstance(source, str) else None
    if one is not None and isinstance(control, Control | None):
        return one if control is None else one & control  # one object, so that it is compiled once
    sources = [source] * n if isinstance(source, str) else list(source)
    controls = [control] * n if isinstance(control, Control | None) else list(control)
    if len(sources) != n or len(controls) != n:
        raise UserError(
            f"{len(sources)} sources and {len(controls)} controls are given for {n} sentences; give one for each."
        )
    prompts = [Prompt(each) for each in sources]
    return [a if b is None else a & b for a, b in zip(prompts, controls, strict=True)]


def bundled_models() -> list[str]:
    """Names of the models that are installed."""
    return sorted(bundled(KIND))


def find_model(name: str | Path, **hub: Any) -> Path:
    """The folder of a bundled model, a folder, or a hub id with what the hub is asked; a `UserError` if there is none."""
    if (installed := bundled(KIND).get(str(name))) is not None:
        return installed
    folder = Path(name).expanduser()
    if folder.is_dir():
        for candidate in (folder, folder / "model"):  # a training run keeps its model in a folder of its own
            if (candidate / CONFIG).exists():
                return candidate
        raise UserError(f"{folder} is not a model: it has no {CONFIG}; the bundled models are {bundled_models()}.")
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_hub(str(name), **hub)
    raise UserError(f"There is no model {str(name)!r}; the bundled ones are {bundled_models()}, else give a folder.")


def _from_hub(repo: str, **hub: Any) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:  # nothing that could be a pickle
        return Path(snapshot_download(repo, allow_patterns=["*.json", "*.safetensors", "*.md"], **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{repo} is neither a folder nor a model that the hub gives ({reason}).") from None
