"""DiffusionLM: the embedding, the denoiser and the schedule in one module that saves, loads and generates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_lm.common import UserError, cpu_multiplies_bf16, gpu_multiplies_bf16
from diffusion_lm.control.attribute import AttributeModel
from diffusion_lm.control.control import Control
from diffusion_lm.control.guidance import Guidance
from diffusion_lm.control.syntax import SyntaxModel
from diffusion_lm.control.tables import LeafTable, TagTable
from diffusion_lm.diffusion.clamp import Clamp
from diffusion_lm.diffusion.losses import CrossEntropy, Objective, Simple, VariationalBound
from diffusion_lm.diffusion.process import Prediction, per_sentence
from diffusion_lm.diffusion.samplers import Sampler
from diffusion_lm.diffusion.schedule import SCHEDULES
from diffusion_lm.generation.sampling import Generation, Step, generate
from diffusion_lm.model.denoiser import EpsHead, Head, LogitHead, ModelConfig, WordEmbedding, X0Head
from diffusion_lm.model.transformer import Transformer
from diffusion_lm.store import CONFIG, WEIGHTS, Kind, save
from diffusion_lm.text.tokenizer import Tokenizer

FORMAT = 1
KIND = Kind("language model", "diffusion-lm train", FORMAT)
BUNDLED = Path(__file__).resolve().parents[1] / "models"


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def find_model(name: str | Path) -> Path:
    """The folder of a bundled model, a folder, or a hub id.

    Raises:
        UserError: if there is no such model.
    """
    if (BUNDLED / str(name) / CONFIG).exists():
        return BUNDLED / str(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        for candidate in (folder, folder / "model"):  # a training run keeps its model in a folder of its own
            if (candidate / CONFIG).exists():
                return candidate
        raise UserError(f"{folder} is not a model: it has no {CONFIG}; the bundled models are {bundled_models()}.")
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_hub(str(name))
    raise UserError(f"There is no model {str(name)!r}; the bundled ones are {bundled_models()}, else give a folder.")


def _from_hub(repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.md"]  # nothing that could be a pickle
    try:
        return Path(snapshot_download(repo, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{repo} is neither a folder nor a model that the hub gives ({reason}).") from None


def save_lm(lm: DiffusionLM, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's three files; counts of lengths keep their digits whatever the dtype."""
    parameters = dict(lm.named_parameters())
    tensors = {k: v.to(dtype) if k in parameters else v for k, v in lm.state_dict().items()}
    save(folder, KIND, {"model": asdict(lm.config)}, tensors, extra=lm.tokenizer.save)


def read_lm(folder: Path) -> tuple[ModelConfig, Tokenizer, dict[str, Tensor]]:
    """The three files of a model.

    Raises:
        UserError: if one is missing, truncated or foreign.
    """
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        settings = values["model"]
        if values["format"] != FORMAT:
            raise UserError(f"{folder} has format {values['format']}; this version of the package reads {FORMAT}.")
        unknown = set(settings) - {f.name for f in fields(ModelConfig)}
        if unknown:
            raise UserError(f"{folder / CONFIG} has settings that this version does not know: {', '.join(unknown)}.")
        config = ModelConfig(**settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder} is not a model of this package: its {CONFIG} is damaged or foreign.") from None
    tokenizer = Tokenizer.load(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS} is missing; copy the whole folder of the model.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} is truncated or damaged ({error}).") from None
    if "length_counts" not in tensors:
        raise UserError(f"{folder / WEIGHTS} belongs to another kind of model.")
    return config, tokenizer, tensors


def fill(lm: DiffusionLM, tensors: dict[str, Tensor], folder: Path) -> None:
    """Put the weights into a model, in float32.

    Raises:
        UserError: if they do not fit its config.
    """
    try:
        lm.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"{folder / WEIGHTS} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}") from None


SELF_CONDITIONING_SHARE = 0.5


class DiffusionLM(nn.Module):
    """Everything that is trained: word embedding, transformer, head (paper section 4).

    Args:
        config: the shape.
        tokenizer: words in and out.
        length_counts: how many training sentences have each length (START and END included), [max_length + 1];
            lengths are drawn from it where no control sets them.
    """

    length_counts: Tensor

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, length_counts: Tensor) -> None:
        super().__init__()
        vocab_size = tokenizer.vocab_size
        self.config, self.tokenizer, self.vocab_size = config, tokenizer, vocab_size
        self.register_buffer("length_counts", length_counts.float(), persistent=True)
        self.schedule = SCHEDULES[config.schedule]()
        dim, width = config.embedding_dim, config.shape[0]
        self.embedding = WordEmbedding(
            vocab_size, dim, normalize=config.normalize_embeddings, learned=config.embeddings == "learned"
        )
        self.folder: Path | None = None
        # In a tuple, since a module held directly would become part of this one's weights.
        self._attribute_model: tuple[AttributeModel, ...] = ()
        self._syntax_model: tuple[SyntaxModel, ...] = ()
        self.transformer = Transformer(config, 2 * dim if config.self_conditioning else dim)
        self.head = self._build_head(config, width, vocab_size)

    def _clean_snr(self) -> float:
        return float(self.schedule.log_snr(torch.tensor(0.0, device="cpu")).exp())

    def _build_head(self, config: ModelConfig, width: int, vocab_size: int) -> Head:
        if config.objective == "cross_entropy":
            return LogitHead(width, vocab_size, self._clean_snr(), prior=config.output_prior)
        head = X0Head if config.prediction == "x0" else EpsHead
        return head(width, config.embedding_dim, vocab_size)

    def objective(self) -> Objective:
        """The training loss that the config names."""
        if self.config.objective == "cross_entropy":
            return CrossEntropy()
        if self.config.objective == "simple":
            return Simple(predicts_eps=self.config.prediction == "eps")
        return VariationalBound()

    def embed(self, ids: Tensor) -> Tensor:
        """Emb(w): ids [B, L] to x0 [B, L, D]."""
        return self.embedding(ids)

    def rounding_logits(self, x0: Tensor) -> Tensor:
        """Logits of p(w | x0): x0 [B, L, D] to [B, L, V]."""
        return self.head.rounding_logits(x0, self.embedding.vectors())

    def denoise(self, z: Tensor, t: Tensor, mask: Tensor | None, previous: Tensor | None = None) -> Prediction:
        """One pass of the network.

        Args:
            z: latents z_t, [B, L, D].
            t: time, [B].
            mask: True at positions that exist, [B, L], or None where all do.
            previous: the last x0_hat of a self-conditioned model, [B, L, D]; None (zeros) at first.
        """
        latents = z
        if self.config.self_conditioning:
            latents = torch.cat([z, torch.zeros_like(z) if previous is None else previous.to(z.dtype)], dim=-1)
        hidden = self.transformer(latents, t, mask)
        return self.head(hidden, z, per_sentence(self.schedule.alpha_bar(t)), self.embedding.vectors())

    def predict(self, z: Tensor, t: Tensor, mask: Tensor) -> Prediction:
        """The denoiser as training sees it: half of the sentences are shown a first x0_hat (without gradient)."""
        previous = None
        if self.config.self_conditioning:
            previous = torch.zeros_like(z)
            rows = torch.randperm(len(z), device=z.device)[: int(len(z) * SELF_CONDITIONING_SHARE)]
            if len(rows):
                with torch.no_grad():
                    previous[rows] = self.denoise(z[rows], t[rows], mask[rows]).x0.to(z.dtype)
        return self.denoise(z, t, mask, previous)

    # -- generation ----------------------------------------------------------------------------------------------

    @property
    def max_words(self) -> int:
        """Most words between START and END."""
        return self.config.max_length - 2

    @property
    def predicts_words(self) -> bool:
        """Whether x0_hat is the average of word vectors under p(w | z_t)."""
        return self.config.objective == "cross_entropy"

    @cached_property
    def bf16(self) -> bool:
        """Whether generation multiplies in bf16: where the hardware does so."""
        return gpu_multiplies_bf16() if self.device.type == "cuda" else cpu_multiplies_bf16()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.length_counts.device

    def generate(
        self,
        n: int = 1,
        control: Control | Sequence[Control | None] | None = None,
        *,
        steps: int = 200,
        sampler: Sampler | None = None,
        clamp: Clamp | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        batch_size: int = 64,
        callback: Callable[[Step], None] | None = None,
    ) -> Generation:
        """Write n sentences.

        Args:
            n: how many.
            control: what is wanted of them, `Attribute("food", "Japanese") & Length(20)`; None for free sentences, a list
                for a target of its own for each.
            steps: denoiser calls (the paper decodes with 200).
            sampler: how z_t becomes z_s; default `Renoise()`, the paper's clamped step.
            clamp: what x0_hat commits to; default `SampledClamp()` for a model that predicts words, else `HardClamp()`.
            guidance: how the control's energy is followed; default `Pull()`, `Guidance.paper(task)` for the original's.
            seed: the same seed, n, batch_size and device give the same sentences.
            batch_size: sentences that are denoised together.
            callback: called after every step with the words that crystallise.

        Returns:
            A `Generation`, a sequence of strings.

        Raises:
            UserError: if the control asks for what this model cannot do, or contradicts itself.
        """
        return generate(
            self,
            n,
            control,
            steps=steps,
            sampler=sampler,
            clamp=clamp,
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            callback=callback,
        )

    # -- checkpoint ----------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """A hash of the word vectors (as bf16, in which they may be shipped) and of the noise that they are seen in."""
        table = self.embedding.weight.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
        settings = f"{self.config.schedule} {self.config.normalize_embeddings} {self.tokenizer.fingerprint}"
        return hashlib.sha256(table + settings.encode()).hexdigest()[:16]

    def attribute_model(self) -> AttributeModel:
        """The latent classifier that was saved with this model.

        Raises:
            UserError: if there is none, or it was trained on another model.
        """
        if not self._attribute_model:
            if self.folder is None:
                raise UserError("This model was not loaded from a folder, so it has no attribute classifier.")
            loaded = AttributeModel.from_pretrained(self.folder / "controls" / "attribute", self.fingerprint)
            self._attribute_model = (loaded.to(self.device),)
        return self._attribute_model[0]

    def has_control(self, name: str) -> bool:
        """Whether something for a control was saved with this model."""
        return self.folder is not None and (self.folder / "controls" / name).is_dir()

    def syntax_model(self) -> SyntaxModel:
        """The latent classifiers of tags and constituents that were saved with this model.

        Raises:
            UserError: if there are none, or they were trained on another model.
        """
        if not self._syntax_model:
            if self.folder is None:
                raise UserError("This model was not loaded from a folder, so it has no classifier of syntax.")
            loaded = SyntaxModel.from_pretrained(self.folder / "controls" / "syntax", self.fingerprint)
            self._syntax_model = (loaded.to(self.device),)
        return self._syntax_model[0]

    @cached_property
    def _tag_table(self) -> TagTable:
        if self.folder is None:
            raise UserError("This model was not loaded from a folder, so it has no table of tags.")
        return TagTable.from_pretrained(self.folder / "controls" / "pos", self.fingerprint)

    def tag_table(self) -> TagTable:
        """The table p(tag | word) that was saved with this model.

        Raises:
            UserError: if there is none, or it belongs to another model.
        """
        return self._tag_table

    @cached_property
    def _leaf_table(self) -> LeafTable:
        if self.folder is None:
            raise UserError("This model was not loaded from a folder, so it has no table of trees.")
        return LeafTable.from_pretrained(self.folder / "controls" / "tree", self.fingerprint)

    def leaf_table(self) -> LeafTable:
        """The table p(leaf of a tree | word) that was saved with this model.

        Raises:
            UserError: if there is none, or it belongs to another model.
        """
        return self._leaf_table

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json, tokenizer.json and model.safetensors, each whole or not at all.

        Args:
            folder: made if it is not there.
            dtype: of the weights on disk; bf16 halves them.
        """
        save_lm(self, Path(folder), dtype)

    @staticmethod
    def from_pretrained(name: str | Path, device: str | torch.device | None = None) -> DiffusionLM:
        """Load a model.

        Args:
            name: a bundled model ("e2e-small"), a folder, or a hub id ("user/model").
            device: where to; default an accelerator if there is one.

        Raises:
            UserError: if it is missing, truncated, or not a model of this package.
        """
        folder = find_model(name)
        config, tokenizer, tensors = read_lm(folder)
        lm = DiffusionLM(config, tokenizer, tensors["length_counts"])
        fill(lm, tensors, folder)
        lm.folder = folder
        return lm.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
