"""Answers over HTTP, by the Open Inference Protocol V2."""

from millstream.deploy.server.client import InferenceClient
from millstream.deploy.server.server import ModelServer

__all__ = ["InferenceClient", "ModelServer"]
