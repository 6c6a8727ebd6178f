"""DiffusionLM: the embedding, the denoiser and the schedule in one module that saves, loads and generates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion_lm.control.attribute_model import AttributeModel
from diffusion_lm.control.base import Control
from diffusion_lm.control.guidance import Guidance
from diffusion_lm.control.leaf_table import LeafTable
from diffusion_lm.control.syntax_model import SyntaxModel
from diffusion_lm.control.tag_table import TagTable
from diffusion_lm.diffusion.clamp import Clamp
from diffusion_lm.diffusion.losses import CrossEntropy, Objective, Simple, VariationalBound
from diffusion_lm.diffusion.prediction import Prediction
from diffusion_lm.diffusion.process import per_sentence
from diffusion_lm.diffusion.samplers import Sampler
from diffusion_lm.diffusion.schedule import SCHEDULES
from diffusion_lm.errors import UserError
from diffusion_lm.hardware import cpu_multiplies_bf16, gpu_multiplies_bf16
from diffusion_lm.model.checkpoint import fill, find_model, read_lm, save_lm
from diffusion_lm.model.config import ModelConfig
from diffusion_lm.model.embedding import WordEmbedding
from diffusion_lm.model.generate import Generation, Step, generate
from diffusion_lm.model.heads import EpsHead, Head, LogitHead, X0Head
from diffusion_lm.model.transformer import Transformer
from diffusion_lm.text.tokenizer import Tokenizer

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

    def denoise(
        self, z: Tensor, t: Tensor, mask: Tensor | None, previous: Tensor | None = None
    ) -> Prediction:
        """One pass of the network.

        Args:
            z: latents z_t, [B, L, D].
            t: time, [B].
            mask: True at positions that exist, [B, L], or None where all do.
            previous: the last x0_hat of a self-conditioned model, [B, L, D]; None (zeros) at first.
        """
        latents = z
        if self.config.self_conditioning:
            latents = torch.cat(
                [z, torch.zeros_like(z) if previous is None else previous.to(z.dtype)], dim=-1
            )
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
