"""The cost model's two entry points. [in work]"""

import numpy as np

from meshwright.costmodels.job import Job
from meshwright.costmodels.layout import LayoutTable
from meshwright.costmodels.prediction import MemoryPrediction, TimePrediction


def predict_time(job: Job, layouts: LayoutTable) -> TimePrediction:
    """Predict the step time of each layout."""
    n = np.ones(len(layouts))
    return TimePrediction(breakdown={"matmul": n * 3.0, "bubble": 0.1 * layouts.pipeline_parallel}, model_flop=1e18)


def predict_memory(job: Job, layouts: LayoutTable) -> MemoryPrediction:
    """Predict the peak memory of the worst rank of each layout."""
    n = 1e11 / (layouts.tensor_parallel * layouts.pipeline_parallel)
    return MemoryPrediction(breakdown={"parameters": n}, reserved_bytes=n * 1.05, nvidia_smi_bytes=n * 1.05 + 1e9)
