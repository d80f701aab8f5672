"""The schema of `catalog/devices/*.yaml`: one accelerator, as its driver counts devices."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from meshwright.catalog.entry import Count, Entry, Fraction, Name, Source, field_error
from meshwright.catalog.precision import Precision
from meshwright.catalog.quantity import Bytes, BytesPerSecond, FlopPerSecond, Seconds, UsdPerHour, Watts
from meshwright.catalog.residuals_entry import ResidualsEntry


class HostLink(StrEnum):
    """How a device reaches its host's memory."""

    PCIE3 = "pcie3"
    PCIE4 = "pcie4"
    PCIE5 = "pcie5"
    PCIE6 = "pcie6"
    C2C = "nvlink-c2c"
    INFINITY_FABRIC = "infinity-fabric"
    UNIFIED_BUS = "unified-bus"


class MemoryEntry(Entry):
    """On-package memory.

    `capacity` is what the driver reports as total, which is often less than the brochure's figure.
    """

    capacity: Bytes
    bandwidth: BytesPerSecond
    source: Source


class ComputeEntry(Entry):
    """Matrix units: `peak` is dense, by precision; `units` are what a wave of tiles fills (SM, CU, AI core).

    tile_rows, tile_columns: the smallest tile of a product at which the library still runs at its full rate.
    exponentials: rate of the special function units, or of whole scores where vector cores make them; null where none
    is published.
    """

    units: Count
    unit: Name
    tile_rows: Count
    tile_columns: Count
    peak: Annotated[dict[Precision, FlopPerSecond], Field(min_length=1)]
    exponentials: FlopPerSecond | None = None
    source: Source


class HostUpdateEntry(Entry):
    """What updating parameters on the host sustains, measured.

    update_bandwidth: bytes of optimizer states that the processor cores of one rank go through, 32 a parameter.
    memory_share: share of the memory's bandwidth that updates on all ranks sustain together.
    link_share: share of the link's bandwidth that states on their way to and from an update sustain.
    copy_share: share of it that plain copies of pinned memory sustain.
    """

    update_bandwidth: BytesPerSecond
    memory_share: Fraction
    link_share: Fraction
    copy_share: Fraction
    source: Source


class NvmeEntry(Entry):
    """The device's share of its node's NVMe drives; bandwidth is that of reading, and of writing."""

    capacity: Bytes
    bandwidth: BytesPerSecond
    source: Source


def _nothing(value: object) -> bool:
    return value is None


class HostEntry(Entry):
    """The device's share of its host: memory and its bandwidth, and the link between the two, per direction.

    Only what is offloaded needs bandwidths, update and nvme, which may be unknown.
    """

    memory: Bytes
    memory_bandwidth: Annotated[BytesPerSecond | None, Field(exclude_if=_nothing)] = None
    link: HostLink
    link_bandwidth: Annotated[BytesPerSecond | None, Field(exclude_if=_nothing)] = None
    update: Annotated[HostUpdateEntry | None, Field(exclude_if=_nothing)] = None
    nvme: Annotated[NvmeEntry | None, Field(exclude_if=_nothing)] = None
    source: Source


class PowerScalingEntry(Entry):
    """How the clock of matrix units follows a limit of power.

    reference: the limit at which the calibration's shares of peak were measured.
    idle: what the device draws without multiplying.
    full_rate: what it would draw if matrix units never waited, at the nominal clock.
    exponent: power of the clock that goes into what matrix units draw: 1 at constant voltage, 3 where voltage follows.
    """

    reference: Watts
    idle: Watts
    full_rate: Watts
    exponent: Annotated[float, Field(ge=1, le=3)]
    source: Source


class PowerEntry(Entry):
    """Board power at the default limit; for a die or an GCD its share of the package.

    scaling: without it, the calibration's shares of peak are taken to be of this limit.
    """

    limit: Watts
    source: Source
    scaling: PowerScalingEntry | None = None

    @model_validator(mode="after")
    def _idle_below(self) -> Self:
        if self.scaling and self.scaling.idle >= min(self.limit, self.scaling.reference, self.scaling.full_rate):
            raise field_error("scaling.idle", "it must be below limit, scaling.reference and scaling.full_rate")
        return self


class PriceEntry(Entry):
    """A public hourly price for one device, for comparing plans by cost."""

    hourly: UsdPerHour
    source: Source


class CalibrationEntry(Entry):
    """The few physical constants that brochures don't print, each measured, with where it was measured.

    matmul_ceiling: share of peak that a large 16-bit matrix product sustains inside a training step.
    narrow_matmul_ceiling: the same for fp8 and narrower formats, quantisation included.
    matmul_half_depth: inner dimension K at which a tile spends as long filling its pipeline as multiplying.
    attention_forward, attention_backward: share that fused attention sustains on long sequences of what the peak and
    the exponentials allow.
    attention_ampere: share of both that kernels written for Ampere reach, without the instructions of later devices.
    attention_deterministic: share of the backward rate that a deterministic backward pass keeps.
    attention_half_length: sequence length at which fused attention reaches half of that.
    streaming: share of memory bandwidth that elementwise kernels sustain.
    kernel_latency: shortest time of one kernel, launch to end, queue full.
    contention: factor by which compute slows while a collective runs beside it.
    workspace: what matrix libraries set aside through the framework's allocator.
    context: device memory of the driver's context and of loaded kernels.
    communicator: device memory that the communication library takes for each group of ranks.
    """

    matmul_ceiling: Fraction
    narrow_matmul_ceiling: Fraction | None = None
    matmul_half_depth: Count
    attention_forward: Fraction
    attention_backward: Fraction
    attention_ampere: Fraction = 1.0
    attention_deterministic: Fraction
    attention_half_length: Count
    streaming: Fraction
    kernel_latency: Seconds
    contention: Annotated[float, Field(ge=1, le=2)]
    workspace: Bytes
    context: Bytes
    communicator: Bytes
    source: Source


class DeviceEntry(Entry):
    """One accelerator.

    `reference_cluster` names the catalog cluster whose tiers stand in where a measurement names only the device;
    `stack` the software stack that training on it normally runs; `residuals` how far off left-out steps are, where a
    calibration by the user's own measurements was laid over it.
    """

    name: Name
    vendor: Name
    family: Name
    reference_cluster: Name
    stack: Name
    memory: MemoryEntry
    compute: ComputeEntry
    host: HostEntry
    power: PowerEntry
    price: PriceEntry | None = None
    calibration: CalibrationEntry
    residuals: tuple[ResidualsEntry, ...] = ()
