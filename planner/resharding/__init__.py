"""Moving the state of a training job from one plan to another, or to and from a consolidated checkpoint."""

from meshwright.planner.resharding.between import reshard
from meshwright.planner.resharding.moves_file import moves_document, moves_json
from meshwright.planner.resharding.reshard import Reshard, Traffic

__all__ = ["Reshard", "Traffic", "moves_document", "moves_json", "reshard"]
