"""The cells of codebook_eer.py: a network quantized, calibrated and tuned, each in one way."""

from typing import NamedTuple

CONTROL = "float, fine-tuned"


class Cell(NamedTuple):
    """What a cell is made of.

    Attributes:
        kind: bits, 0 for float; a binary quantizer's name, "scaled" for adaptive with a learned
            scale, "sign" for sign(w); "2 mixed": as large as 2 bits.
        speech: what is done with unlabelled speech, or without any, before fine-tuning.
        tuned: "", "at once", or an order of stages.
        longer: --steps for each stage of a mixed network, also at once; else they are shared.
    """

    kind: int | str
    speech: str = ""
    tuned: str = ""
    longer: bool = False


FREE = {f"{b} bit": Cell(b) for b in (8, 4, 3, 2, 1)} | {"1 bit static": Cell("static")}
SPEECH = {
    f"{b} bit, {form}": Cell(b, form)
    for b in (4, 3, 2, 1)
    for form in ("without speech", "BatchNorm", "calibrated")
}
TUNED = {
    f"{name}, fine-tuned": Cell(kind, tuned="at once")
    for name, kind in {
        "8 bit": 8,
        "4 bit": 4,
        "3 bit": 3,
        "2 bit": 2,
        "1 bit sign(w)": "sign",
        "1 bit static": "static",
        "1 bit adaptive": "adaptive",
        "1 bit adaptive, learned scale": "scaled",
    }.items()
}
TUNED |= {
    f"{b} bit, without speech, fine-tuned": Cell(b, "without speech", "at once") for b in (3, 2)
}
TUNED |= {
    f"{name}, calibrated, fine-tuned": Cell(kind, "calibrated", "at once")
    for name, kind in {
        "3 bit": 3,
        "2 bit": 2,
        "1 bit static": "static",
        "1 bit adaptive": "adaptive",
    }.items()
}
MIXED = {
    f"{b} bit mixed, {name}": Cell(f"{b} mixed", "calibrated", tuned=how)
    for b in (3, 2)
    for name, how in {
        "fine-tuned": "at once",
        "MSFT": "lowest_first",
        "MSFT highest first": "highest_first",
    }.items()
}
MIXED |= {
    "2 bit mixed, fine-tuned longer": Cell("2 mixed", "calibrated", "at once", longer=True),
    "2 bit mixed, MSFT, longer": Cell("2 mixed", "calibrated", "lowest_first", longer=True),
}
CELLS = {"float": Cell(0)} | FREE | SPEECH | {CONTROL: Cell(0, tuned="at once")} | TUNED | MIXED

PAIRS = [
    (f"{b} bit {one}", f"{b} bit{other}")
    for b in (3, 2)
    for one, other in [
        ("mixed, fine-tuned", ", calibrated, fine-tuned"),
        ("mixed, MSFT", " mixed, fine-tuned"),
        ("mixed, MSFT highest first", " mixed, fine-tuned"),
        ("mixed, MSFT", ", calibrated, fine-tuned"),
    ]
] + [
    ("2 bit mixed, MSFT, longer", "2 bit mixed, fine-tuned longer"),
    ("1 bit adaptive, calibrated, fine-tuned", "1 bit static, calibrated, fine-tuned"),
    ("1 bit adaptive, calibrated, fine-tuned", "1 bit sign(w), fine-tuned"),
    ("1 bit static, calibrated, fine-tuned", "1 bit sign(w), fine-tuned"),
]
"""Cells of one file size, the one that should be better first."""
