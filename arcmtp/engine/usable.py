"""What of a device is used after its latest selftest."""

from __future__ import annotations

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.device import Device
from arcmtp.runtime.verdict import WITHOUT, Ability, Verdict, verdict

ADVICE = "run arcmtp selftest again, or use it all the same with --ignore-selftest"


class Usable:
    """What the verdict on a device leaves; with `ignore` all of it. `without`: a line for each thing that is done
    without.

    Raises ArcmtpError for a device that computes wrongly.
    """

    def __init__(self, device: Device, ignore: bool) -> None:
        self._verdict = (None if ignore else verdict(device)) or Verdict("")
        self._name, self._is_cpu = device.sycl_device.name, device.is_cpu
        self.without: list[str] = []
        if why := self._verdict.against("device"):
            raise ArcmtpError(f"{self._name} is not used: {why}; {ADVICE}")

    def may(self, ability: Ability, asked: bool) -> bool:
        """Whether drafts or graphs may be used. Raises ArcmtpError if they may not and were asked for."""
        why = self._verdict.against(ability)
        if why and asked:
            raise ArcmtpError(f"{self._name}: no {ability} can be asked for: {why}; {ADVICE}")
        if why:
            self.without.append(f"{WITHOUT[ability]}: {why}")
        return not why

    def graphs(self, asked: bool | None) -> bool | None:
        """Whether graphs are used; None: whatever is faster. Raises ArcmtpError as `may` does."""
        # The CPU driver never frees 2 KiB per kernel of every replay, however it is submitted (docs/log.md).
        if asked is False or (asked is None and self._is_cpu):
            return False
        return asked if self.may("graphs", asked=bool(asked)) else False
