"""Tiny models and tokenizers of transformers in folders, as `save_pretrained` writes them: random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

BYTES = [*map(chr, range(ord("!"), ord("~") + 1)), "Ġ"]  # what a byte-level tokenizer makes of ASCII

CLIP_CONFIG: dict[str, Any] = {
    "projection_dim": 24,
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 32, "patch_size": 8,
    },
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 200, "max_position_embeddings": 16, "bos_token_id": 190, "eos_token_id": 191,
    },
}  # fmt: skip

SIGLIP_CONFIG: dict[str, Any] = {
    "model_type": "siglip",
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 32, "patch_size": 8,
    },
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 12, "max_position_embeddings": 8,
    },
}  # fmt: skip

CLAP_CONFIG: dict[str, Any] = {
    "projection_dim": 24,
    "audio_config": {
        "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
        "num_hidden_layers": 2, "aff_block_r": 2, "enable_fusion": True,
    },
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 200, "max_position_embeddings": 18,
    },
}  # fmt: skip


def save_clip_tokenizer(folder: Path) -> None:
    """CLIP's, of single characters; it begins a text with token 190 and ends it with 191."""
    from transformers import CLIPTokenizer

    vocab = {token: i for i, token in enumerate([*BYTES, *(f"{byte}</w>" for byte in BYTES)])}
    assert len(vocab) == 190
    vocab |= {"<|startoftext|>": 190, "<|endoftext|>": 191}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)


def save_clap_tokenizer(folder: Path) -> None:
    """RoBERTa's, of single characters."""
    from transformers import RobertaTokenizer

    tokens = ["<s>", "<pad>", "</s>", "<unk>", *BYTES, "<mask>"]
    RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)


def save_word_tokenizer(folder: Path, *, eos: bool = True) -> None:
    """A tokenizer of nine words, with which SigLIP's fixed length can be tried."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "</s>", "the", "sea", "a", "photo", "of", "forest", "harbour", "rain", "field"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    if eos:
        tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)


def save_joint(folder: Path, kind: str, seed: int = 0, **processor: Any) -> Path:
    """A joint checkpoint ("clip", "siglip" or "clap") with its tokenizer, and a processor file if given any."""
    import json

    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    config = {"clip": CLIP_CONFIG, "siglip": SIGLIP_CONFIG, "clap": CLAP_CONFIG}[kind]
    model = AutoModel.from_config(AutoConfig.for_model(**{"model_type": kind, **config}))
    for module in model.modules():  # untrained statistics would hide a batch normalisation that moves
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(50, 500)
    model.save_pretrained(folder)
    {"clip": save_clip_tokenizer, "siglip": save_word_tokenizer, "clap": save_clap_tokenizer}[kind](folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
