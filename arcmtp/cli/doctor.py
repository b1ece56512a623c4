"""`arcmtp doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from arcmtp.cli.options import add_kv_option, integer
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `doctor`."""
    doctor = commands.add_parser("doctor", help="check this machine and say what to mend")
    doctor.add_argument("-m", "--model", metavar="FILE", help="a GGUF file: adds what it takes of the device's memory")
    doctor.add_argument(
        "-c", "--ctx", metavar="N", type=integer(1), help="with -m: tokens of context (default 8192 or its limit)"
    )
    add_kv_option(doctor)
    doctor.add_argument("--device", metavar="D", help="the device to try, as `arcmtp devices` lists it")
    doctor.add_argument("--json", action="store_true", help="print one JSON list of all findings")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    """Status 1 if there is any problem."""
    from arcmtp.cli.loading import bring_models
    from arcmtp.doctor.machine import Machine
    from arcmtp.doctor.planned_model import PlannedModel
    from arcmtp.doctor.report import examine, line, summary

    if options.ctx is not None and options.model is None:
        raise ArcmtpError("--ctx needs -m FILE, the model whose memory is planned")
    bring_models(options)
    model = None if options.model is None else PlannedModel.open(options.model, options.ctx, options.kv_type)
    findings = []
    for finding in examine(Machine(), options.device, model):
        findings.append(finding)
        if not options.json:
            print(line(finding), flush=True)
    print(json.dumps([dataclasses.asdict(finding) for finding in findings]) if options.json else summary(findings))
    return int(any(finding.status == "problem" for finding in findings))
