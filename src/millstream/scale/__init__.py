"""How far it goes: speedup, efficiency and a forecast for more workers."""

from .speedup import Scaling, measure, serial_fraction

__all__ = ["Scaling", "measure", "serial_fraction"]
