"""A tiny random model in a directory, for what takes models by name: the command line, recipes, the demo."""

from __future__ import annotations

from pathlib import Path

from tiny_language import byte_tokenizer, tiny_model


def save_tiny_model(directory: Path, *, chat: bool = False, context: int = 1024) -> Path:
    """Write a model and its byte tokenizer where `load_model` finds them."""
    tiny_model(max_position_embeddings=context).save_pretrained(directory)
    byte_tokenizer(chat=chat).save_pretrained(directory)
    return directory
