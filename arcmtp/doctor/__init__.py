"""Checks of the machine, which need no SYCL, and of a device."""
