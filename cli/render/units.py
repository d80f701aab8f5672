"""Numbers as people read them: GiB, GB/s, ms."""

from collections.abc import Callable

# From here on all digits of a figure say less than its size, and would take a table's width.
LARGEST_SPELLED_OUT = 1e9


def shown_figure(value: float, form: str) -> str:
    """Show a number in a format such as ",.1f" or "+.1f"; with an exponent where it is too large for that."""
    if abs(value) < LARGEST_SPELLED_OUT:
        return format(value, form)
    return format(value, "+.3e" if form.startswith("+") else ".3e")


def shown_bytes(value: float) -> str:
    """Show bytes in GiB."""
    return f"{shown_figure(value / 2**30, '.1f')} GiB"


def shown_volume(value: float) -> str:
    """Show bytes that move, in MB, GB or TB."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB")):
        if value >= scale:
            return f"{shown_figure(value / scale, ',.2f')} {unit}"
    return f"{value / 1e6:,.2f} MB"


def shown_seconds(value: float) -> str:
    """Show seconds, or milliseconds below one."""
    return f"{shown_figure(value, ',.2f')} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def shown_duration(value: float) -> str:
    """Show seconds as days or hours, where they are so many."""
    for scale, unit in ((86_400.0, "days"), (3600.0, "hours")):
        if value >= 2 * scale:
            return f"{shown_figure(value / scale, ',.1f')} {unit}"
    return shown_seconds(value)


def shown_energy(value: float) -> str:
    """Show joules as people pay for them, in kWh, MWh or GWh."""
    kwh = value / 3.6e6
    for scale, unit in ((1e6, "GWh"), (1e3, "MWh")):
        if kwh >= scale:
            return f"{kwh / scale:,.4g} {unit}"
    return f"{kwh:,.4g} kWh"


def shown_span(low: float, high: float, *, shown: Callable[[float], str]) -> str:
    """Show from where to where; the unit once where both have the same."""
    (first, first_unit), (last, last_unit) = shown(low).split(), shown(high).split()
    return f"{first}-{last} {last_unit}" if first_unit == last_unit else f"{first} {first_unit} - {last} {last_unit}"


def shown_share(value: float) -> str:
    """Show a fraction as a percentage."""
    return f"{shown_figure(value * 100, '.1f')} %"


def shown_error(value: float) -> str:
    """Show a relative error with its sign."""
    return f"{shown_figure(value * 100, '+.1f')} %"


def shown_rate(value: float) -> str:
    """Show bytes per second in GB/s."""
    return f"{value / 1e9:,.4g} GB/s" if value < 1e12 else f"{value / 1e9:,.0f} GB/s"


def shown_tokens(value: int) -> str:
    """Show a count of tokens, from a million on as one of parameters."""
    return shown_parameters(value) if value >= 1e6 else f"{value:,}"


def shown_parameters(value: float) -> str:
    """Show a count of parameters in millions, billions or trillions."""
    for scale, letter in ((1e12, "T"), (1e9, "B")):
        if value >= scale:
            return f"{value / scale:.4g} {letter}"
    return f"{value / 1e6:.4g} M"
