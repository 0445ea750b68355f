"""What a network's answer rests on: maps over the image, and pictures of what the network holds."""

from retinue.explaining.checking import Check, check
from retinue.explaining.explanation import Explanation
from retinue.explaining.looking import upright
from retinue.explaining.methods import METHODS, explain

__all__ = ["METHODS", "Check", "Explanation", "check", "explain", "upright"]
