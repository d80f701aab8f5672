"""What the reference launcher will hold and send, rank by rank, worked out before it runs: no PyTorch in here."""

from meshwright.planner.ledger.ledger import RankLedger, ledger_of
from meshwright.planner.ledger.workload import Workload

__all__ = ["RankLedger", "Workload", "ledger_of"]
