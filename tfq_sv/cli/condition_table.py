"""`evaluate --conditions`: one table of networks under codecs, noise, rooms and short speech."""

import hashlib
import re
from pathlib import Path
from typing import Any

from absl import flags

from tfq_sv.cli.common import fingerprint, open_encoder, print_skipped, reasons
from tfq_sv.data.codecs import AMR, CODECS
from tfq_sv.data.conditions import CONDITIONS
from tfq_sv.data.corpus import Corpus
from tfq_sv.data.trials import Trials
from tfq_sv.evaluation.conditions import CLEAN, Measured, measure_conditions
from tfq_sv.evaluation.extraction import Cache, Encoder
from tfq_sv.evaluation.operating_points import Rate
from tfq_sv.reports.page import Page
from tfq_sv.reports.table import Table
from tfq_sv.verification.decision import find_threshold


def run(flag_values: flags.FlagValues, corpus: Corpus, trials: Trials) -> dict[str, Any]:
    """Measures --model, and --reference beside it; prints, and writes --report."""
    names = [flag_values["model"].value, flag_values["reference"].value]
    folder = flag_values["embeddings"].value
    fast = flag_values["signature"].value == "inflate"
    # What is wrong with the second network comes up before the work on the first.
    encoders = {name: open_encoder(name, fast=fast) for name in filter(None, names)}
    caches = {
        name: _caches(folder, name, fingerprint(name, encoder, fast=fast)) if folder else None
        for name, encoder in encoders.items()
    }
    found: dict[str, Measured] = {}
    for name, encoder in encoders.items():
        found[name] = measure_conditions(
            encoder,
            corpus,
            trials,
            threshold=_stored(encoder, name),
            cache=caches[name],
            strict=flag_values["strict"].value,
            progress=Path(name).name,
        )
        if found[name].skipped:
            print_skipped(found[name].skipped, len(trials.utterances))
    table, notes = _table(found), _notes(found, trials)
    print(f"{table}\n\n" + "\n".join(notes))
    if flag_values["report"].value:
        page = Page(f"{names[0]}: conditions", notes[0]).table(table)
        for note in notes[1:]:
            page.text(note)
        page.write(flag_values["report"].value)
        print(f"wrote {flag_values['report'].value}")
    return {name: _record(measured) for name, measured in found.items()}


def _stored(encoder: Encoder, name: str) -> tuple[float, str] | None:
    """The file's threshold: at FAR 1e-2, else at the EER; None where it holds none."""
    about = getattr(encoder, "about", {})
    stored = about.get("thresholds") or {}
    for choice in ("far_1e-2", "eer"):
        if (stored.get(choice) or {}).get("threshold") is not None:
            threshold = find_threshold(about, choice, name)
            return threshold.value, threshold.source
    return None


def _caches(folder: str, name: str, network: str) -> dict[str, Cache]:
    """A folder for each network and condition."""
    names = [CLEAN, *(condition.name for condition in CONDITIONS)]
    mark = hashlib.sha256(network.encode()).hexdigest()[:8]  # two networks may have one file name
    home = Path(folder) / f"{_folder_name(Path(name).name)}-{mark}"
    return {one: Cache(home / _folder_name(one), f"{network} {one}") for one in names}


def _folder_name(text: str) -> str:
    """A folder's name.

    >>> _folder_name("Opus 8 kbit/s"), _folder_name("level -30 dB")
    ('opus-8-kbit-s', 'level-30-db')
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())


def _table(found: dict[str, Measured]) -> Table:
    many = len(found) > 1
    shown = {name: Path(name).name for name in found}
    if len(set(shown.values())) < len(found):
        shown = {name: name for name in found}
    header = ["tested recording"]
    for name in found:
        of = f"{shown[name]}: " if many else ""
        header += [f"{of}EER %", "FAR %", "FRR %"]
    rows = []
    for condition in next(iter(found.values())).rows:
        cells = [condition]
        for measured in found.values():
            row = measured.rows[condition]
            cells += [str(rate) for rate in (row.eer, row.far, row.frr)] if row else ["too few"] * 3
        rows.append(cells)
    return Table(header, rows)


def _notes(found: dict[str, Measured], trials: Trials) -> list[str]:
    notes = [
        f"{len(trials):,} trials from {trials.source}: each one's first recording as recorded, its "
        "second under the condition; 95 % intervals over speakers"
    ]
    for name, measured in found.items():
        notes.append(
            f"{name}: FAR and FRR at threshold {measured.threshold:.4f} ({measured.source})"
        )
    fewer = [
        f"{condition} {row.trials:,}"
        for condition, row in next(iter(found.values())).rows.items()
        if row and row.trials < len(trials)
    ]
    if fewer:
        notes.append(f"fewer trials, as recordings are shorter or bad: {', '.join(fewer)}")
    if AMR not in CODECS:
        notes.append(f"without {AMR}, which needs PyAV below 19: pip install 'av>=12,<19'")
    return notes


def _record(measured: Measured) -> dict[str, Any]:
    def three(rate: Rate) -> list[float]:
        return [rate.value, rate.low, rate.high]

    return {
        "threshold": measured.threshold,
        "source": measured.source,
        "skipped": reasons(measured.skipped),
        "conditions": {
            condition: row
            and {
                "trials": row.trials,
                "eer": three(row.eer),
                "far": three(row.far),
                "frr": three(row.frr),
            }
            for condition, row in measured.rows.items()
        },
    }
