"""What Intel's compiler makes of the kernels: every opcode with every combination of types, every message."""

import re

# The target's type, then the sources'.
FORMS = {
    "mov": """ud,ud f,f d,d d,w f,hf f,d d,f ub,ub q,q q,ud hf,f uw,uw b,b q,w q,d d,uw d,v hf,hf w,v d,ud q,uw f,uw
              uq,uq ud,f f,ud uw,ub ud,d w,b f,w d,uv uw,uv ud,w w,uv w,w b,w d,ub w,ub uw,f d,b w,f""",
    "add": """q,q,q f,f,f q,q,w d,d,d q,q,ud d,d,w ud,ud,ud q,q,d q,q,uw ud,ud,uw q,ud,w uw,uw,uw uq,uq,ud uq,uq,uw
              d,uw,w uq,uq,uq q,d,d uq,uq,d d,w,w d,d,uw q,d,q q,ud,d b,b,w ub,ub,w d,ub,d d,uw,d
              d,b,d q,ud,uw w,w,w ub,ub,uw q,uw,d q,uw,w q,ud,ud""",
    "add3": "d,d,d,d d,w,d,d d,d,d,w d,d,d,uw ud,ud,ud,ud ud,ud,ud,uw ud,uw,ud,ud d,uw,d,d d,uw,d,w",
    "mul": "f,f,f d,d,w d,d,uw ud,ud,uw d,w,w d,uw,w d,ub,uw w,b,w w,w,w d,uw,uw d,ub,w",
    "mad": "f,f,f,f ud,ud,uw,uw d,d,uw,w d,d,d,uw d,uw,d,uw w,w,w,w d,uw,uw,w d,d,w,w",
    "mac": "f,f,f",
    "mach": "ud,ud,ud d,d,d d,d,ud",
    "macl": "d,d,d ud,ud,ud",
    "sel": "f,f,f uw,uw,uw d,d,d d,d,w d,w,w ud,ud,uw ud,ud,ud w,w,w",
    "cmp": "d,d,w f,f,f d,d,d uw,uw,uw ud,ud,ud ud,ud,uw w,w,w d,ud,ud d,ud,uw d,d,uw w,uw,uw uw,ub,uw",
    "and": "ud,ud,ud uw,uw,uw ud,ud,d ud,ud,uw ud,ud,w d,uw,w d,d,w d,d,d w,w,w d,uw,uw d,d,uw",
    "or": "ud,ud,uw d,d,w ud,ud,ud d,d,d uw,uw,uw ud,ud,d d,d,uw ud,ud,w b,b,w d,uw,w",
    "xor": "d,d,d uw,uw,uw ud,ud,ud",
    "not": "d,d",
    "shl": """q,q,w d,d,w ud,ud,uw q,ud,w q,d,w q,uw,w d,uw,w uq,uq,uw ud,uw,uw w,w,w uq,ud,uw q,w,w d,b,w d,w,uw d,d,d
              d,ud,uw b,b,w""",
    "shr": "ud,ud,uw ud,ud,ud ud,uw,uw uq,uq,uw uq,ud,uw uw,uw,uw ub,ub,uw",
    "asr": "d,d,w q,q,w w,w,w",
    "bfn": "ud,ud,ud,ud ud,ud,ud,uw uw,uw,uw,uw ud,uw,ud,ud ud,uw,ud,uw",
    "bfrev": "ud,ud",
    "lzd": "ud,ud",
    "rnde": "f,f",
    "math.inv": "f,f",
    "math.invm": "f,f,f",
    "math.rsqtm": "f,f",
    "madm": "f,f,f,f",
    "dpas": "d,d,u4,b d,d,ub,b d,d,u2,b d,d,s4,b d,d,b,b",
}
WITHOUT_OPERANDS = ("send", "sync", "jmpi", "goto", "join", "call", "ret", "nop", "illegal")
MESSAGES_BY_NAME = ("load", "store", "atomic_iinc", "atomic_iadd", "fence")  # for send, in the compiler's own text
LANES = (1, 2, 4, 8, 16, 32)
REGIONS = ("<1>", "<2>", "<4>", "<0;1,0>", "<1;1,0>", "<2;1,0>", "<4;1,0>", "<8;1,0>", "<1;0>", "<0;0>", "<4;2>", "<0>")
LOADS = {  # element, with "t" where one run of elements lies behind one address
    "slm": ["d32", "d32x3t", "d32x4t", "d64", "d64x2t", "d64x3t", "d64x4t", "d64x8t", "d64x16t", "d64x32t"],
    "ugm": ["d32", "d32x2", "d32x4", "d16u32", "d32x2t", "d32x4t", "d32x8t", "d32x16t", "d32x32t", "d32x64t", "d64x32t",
            "d64x64t"],
}
STORES = {
    "slm": ["d32", "d64x2t", "d64x4t", "d64x8t", "d64x32t"],
    "ugm": ["d32", "d16u32", "d8u32", "d32x4t", "d32x8t", "d32x16t", "d32x32t", "d32x64t"],
}
ARGUMENT_LOADS = ("d32x8t", "d32x16t", "d32x32t")  # of a kernel's prologue: not in these tests
OTHER_MESSAGES = (
    "atomic_iinc.ugm.d32", "atomic_iadd.ugm.d32", "fence.slm.none.group", "fence.ugm.none.gpu",
    "fence.ugm.invalidate.gpu", "signal barrier", "end of thread",
)  # fmt: skip

_INSTRUCTION = re.compile(r"\s*(?:\([^)]*\))?\s*([a-z][\w.]*)(?!\w*:)\s*(?:\((\d+)\|M0\))?\s*(.*)$")
_TYPE = re.compile(r":(uq|ud|uw|ub|uv|u4|s4|u2|hf|q|d|w|b|f|v)\b(?!\d)")


def every_form() -> set[str]:
    return {f"{opcode} {form}" for opcode, forms in FORMS.items() for form in forms.split()}


def messages() -> set[str]:
    accesses = {
        f"{kind}.{space}.{shape}"
        for kind, table in (("load", LOADS), ("store", STORES))
        for space, shapes in table.items()
        for shape in shapes
    }
    return accesses | {f"load.ugm.{shape}.bti[255]" for shape in ARGUMENT_LOADS} | set(OTHER_MESSAGES)


def what_occurs(disassembly: str) -> tuple[set[str], set[str], set[int], set[str]]:
    """The forms, messages, lane counts and regions of a kernel's text."""
    forms, sent, lanes, regions = set(), set(), set(), set()
    for line in disassembly.splitlines():
        body, _, comment = re.sub(r"^/\*.*?\*/|\{[^}]*\}", "", line).partition("//")
        found = _INSTRUCTION.match(body)
        if not found:
            continue
        opcode, count, operands = found.groups()
        if count:
            lanes.add(int(count))
        if not opcode.startswith(("math.", *MESSAGES_BY_NAME)):
            opcode = opcode.split(".")[0]
        if opcode == "send":
            sent.add(_message(comment.split("//")[0].split(";")[-1]))
        elif opcode.split(".")[0] in MESSAGES_BY_NAME:
            sent.add(_message(opcode + (".bti[255]" if "bti[255]" in operands else "")))
        elif opcode in WITHOUT_OPERANDS:
            forms.add(opcode)
        else:
            forms.add(f"{opcode} {','.join(_TYPE.findall(operands))}")
            regions.update(re.findall(r"<[\d;,]+>", operands))
    return forms, sent, lanes, regions


def _message(text: str) -> str:
    text = re.sub(r"\[A[^]]*\]", "", text).strip()
    if text.startswith(("fence", "signal", "end")):
        return text
    return ".".join(text.split(".")[:3]) + (".bti[255]" if "bti[255]" in text else "")
