"""Answers where there is only onnxruntime and NumPy."""

from millstream.deploy.edge.bundle import EdgeBundle, EdgeReport

__all__ = ["EdgeBundle", "EdgeReport"]
