"""Numbers of a plan file: nine significant digits, so that the last bits of a machine's arithmetic never reach it."""


def significant(value: float) -> float:
    """Give a float at nine significant digits."""
    return float(f"{value:.9g}")


def significant_bytes(value: float) -> int:
    """Give whole bytes at nine significant digits."""
    return round(significant(value))
