"""Talking to a model in the terminal: base, steered, or both side by side."""

from trimtab.chat.conversation import Conversation
from trimtab.chat.generation import reply
from trimtab.chat.session import Session
from trimtab.chat.settings import ChatSettings, Form

__all__ = ["ChatSettings", "Conversation", "Form", "Session", "reply"]
