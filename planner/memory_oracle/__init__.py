"""What a plan says that a rank holds, ready to be held against what PyTorch's own tracker finds: no PyTorch in here."""

from meshwright.planner.memory_oracle.comparison import Comparison, require_agreement
from meshwright.planner.memory_oracle.expectation import Expectation, expectations
from meshwright.planner.memory_oracle.held import Held
from meshwright.planner.memory_oracle.question import oracle_workload

__all__ = ["Comparison", "Expectation", "Held", "expectations", "oracle_workload", "require_agreement"]
