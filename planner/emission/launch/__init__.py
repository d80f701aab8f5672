"""Files that start a plan's processes: a script for a node, and Slurm, Kubernetes and SkyPilot around it."""
