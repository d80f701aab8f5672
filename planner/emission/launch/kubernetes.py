"""`pytorchjob.yaml`: the plan's nodes as pods of Kubeflow's training operator (kubeflow.org/v1)."""

from typing import Any

import yaml

from meshwright.planner.emission.launch.nodes import Nodes
from meshwright.planner.emission.shell import comment

# The extended resource of each vendor's device plugin, and a public image with its PyTorch.
RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "huawei": "huawei.com/Ascend910"}
IMAGES = {
    "nvidia": "nvcr.io/nvidia/pytorch:25.06-py3",
    "amd": "rocm/pytorch:latest",
    "huawei": "quay.io/ascend/cann:8.1.rc1-910b-ubuntu22.04-py3.10",
}
MOUNT = "/plan"


def pytorch_job(nodes: Nodes, *, header: str) -> str:
    """Give the manifest. The operator numbers the pods (RANK) and names the first (MASTER_ADDR, MASTER_PORT)."""
    replicas = {"Master": _replica(nodes, 1)}
    if nodes.nodes > 1:
        replicas["Worker"] = _replica(nodes, nodes.nodes - 1)
    document = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": nodes.job},
        "spec": {"nprocPerNode": str(nodes.devices), "pytorchReplicaSpecs": replicas},
    }
    notes = (
        f"Put the files where the pods find them: kubectl create configmap {nodes.job} --from-file=.\n"
        "Replace the image by one that holds the training code."
    )
    return comment(header) + comment(notes) + yaml.safe_dump(document, sort_keys=False)


def _replica(nodes: Nodes, count: int) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": IMAGES[nodes.vendor],
        "command": ["bash", "-c", f'NODE_RANK="$RANK" exec bash {MOUNT}/run.sh'],
        "resources": {"limits": {RESOURCES[nodes.vendor]: nodes.devices}},
        "volumeMounts": [{"name": "plan", "mountPath": MOUNT}, {"name": "memory", "mountPath": "/dev/shm"}],
    }
    volumes = [
        {"name": "plan", "configMap": {"name": nodes.job}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    return {
        "replicas": count,
        "restartPolicy": "OnFailure",
        "template": {"spec": {"containers": [container], "volumes": volumes}},
    }
