"""What the encrypted average costs, beside the usual recipe, in one run: `python bench/crypto.py`.

CPU seconds (`process_time`, all threads) per 1,000,000 parameters, medians of several runs; five members, threshold
three. Nothing is cached between runs: encrypting and decoding each expand the round's public polynomials anew.

    upload   bytes a member stores a round, for a parameter: ciphertext, sealed shares and proofs
    encrypt  one member's `join_values` and `deal`: draw a key, encrypt, pack, Merkle root, deal and prove shares
    sum      from stored bytes to the sum, for each of five members: read, check ranges, add
    opening  what one shareholder publishes a round, in bytes
    decode   from sum and openings to integers: interpolate, check every coefficient's noise, hash the result, split

The usual recipe is TenSEAL's CKKS with one secret key that all members share (8192, [60, 40, 40], scale 2**40), vectors
of 4,096 values. It needs no opening, because every member could decrypt every update. Its sum is timed from stored
bytes too, its decoding from the sum in memory.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Literal

import numpy as np
import tenseal as ts
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fedchain.crypto import (
    OPENING_BYTES,
    EngineName,
    Opened,
    Opening,
    RoundContext,
    Upload,
    deal,
    generate_encryption_key,
    make_opening,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.protocol.charter import Charter, Federation, Update
from fedchain.protocol.ids import Address, Digest, Index
from fedchain.protocol.update_format import UpdateFormat, join_values, split_sums, update_format

MILLION = 1_000_000
MEMBERS, THRESHOLD = 5, 3
SLOTS = 4096
TARGETS = {
    "upload_bytes_per_param": 1.3,
    "encrypt_s": 0.25,
    "sum_s_per_member": 0.02,
    "opening_bytes": 4096,
    "decode_s": 0.15,
}
LABELS = {
    "upload_bytes_per_param": "upload, bytes a parameter",
    "encrypt_s": "encrypt, CPU-s",
    "sum_s_per_member": "sum, CPU-s a member",
    "opening_bytes": "opening, bytes",
    "decode_s": "decode, CPU-s",
}

Figures = dict[str, float]
Bits = int | Literal["auto"]


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU cost of the encrypted average, beside the usual CKKS recipe")
    parser.add_argument("--parameters", type=int, default=MILLION)
    parser.add_argument("--bits", default="auto", help="bits of a value, or auto; a sum has room for 16 members")
    parser.add_argument("--runs", type=int, default=7, help="runs of each step; the usual recipe takes at most 3")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "crypto.json")
    options = parser.parse_args()
    d, runs = options.parameters, options.runs
    bits: Bits = "auto" if options.bits == "auto" else int(options.bits)
    form = update_format(Charter(federation=Federation(name="bench"), update=Update(bits=bits)), d)

    ours, by_seal = measure_fedchain(form, runs)
    usual = measure_usual(d, min(runs, 3))
    report(ours, by_seal, usual, d)
    result = {
        **ours,
        "tenseal_engine": by_seal,
        "usual_recipe": usual,
        "ratio": {name: usual[name] / ours[name] for name in ours},
        "targets": TARGETS,
        "met": all(ours[name] <= TARGETS[name] for name in ours),
        "parameters": d,
        "bits": bits,
        "values_a_coefficient": form.fields,
        "members": MEMBERS,
        "threshold": THRESHOLD,
        "runs": runs,
        "public_polynomials": "expanded anew in every encrypt and decode",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "tenseal": version("tenseal"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def cpu_seconds(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """The median CPU time of `work` over some runs, and what the last one gave."""
    taken, given = [], None
    for _ in range(runs):
        start = process_time()
        given = work()
        taken.append(process_time() - start)
    return median(taken), given


def measure_fedchain(form: UpdateFormat, runs: int) -> tuple[Figures, Figures]:
    """Our figures through numpy (the default engine) and through TenSEAL."""
    d, scale = form.model_size, form.size / MILLION
    context = RoundContext(31337, Address("0x" + "fe" * 20), 1, 0, Digest(bytes(32)))
    keys = [generate_encryption_key() for _ in range(MEMBERS)]
    terms: dict[str, Any] = {
        "encryption_keys": {Index(j): public for j, (_, public) in enumerate(keys)},
        "threshold": THRESHOLD,
    }
    values = np.random.default_rng(1).integers(0, 2 * form.steps + 1, (MEMBERS, form.values))

    def dealt(i: int) -> Upload:
        coefficients = join_values(values[i], form)
        return deal(context, dealer=Index(i), dealer_address=address_of(i), coefficients=coefficients, **terms)

    dealt(0)  # The first call pays for FFT plans and page faults.
    encrypt_s, _ = cpu_seconds(lambda: dealt(0), runs)
    uploads = [dealt(i) for i in range(MEMBERS)]
    openings: dict[Index, Opening] = {}
    for j, (private, _) in enumerate(keys):
        shares = [
            open_share(
                upload.shares,
                context,
                dealer=Index(i),
                dealer_address=address_of(i),
                me=Index(j),
                private_key=private,
                **terms,
            )
            for i, upload in enumerate(uploads)
        ]
        openings[Index(j)] = make_opening(shares)

    stored = [upload.ciphertext for upload in uploads]
    size = (len(stored[0]) + len(uploads[0].shares)) / form.size
    figures: list[Figures] = []
    engines: tuple[EngineName, ...] = ("numpy", "tenseal")
    for engine in engines:
        sum_s, aggregate = cpu_seconds(partial(sum_ciphertexts, stored, d, engine), runs)
        opening = partial(open_aggregate, threshold=THRESHOLD, participants=MEMBERS, context=context, d=d)
        decoded = partial(decode, partial(opening, aggregate, openings, engine=engine), form)
        decode_s, sums = cpu_seconds(decoded, runs)
        assert np.array_equal(sums, values.sum(axis=0)), "the decoded sum is not the sum"
        figures.append(
            {
                "upload_bytes_per_param": size,
                "encrypt_s": encrypt_s / scale,
                "sum_s_per_member": sum_s / MEMBERS / scale,
                "opening_bytes": OPENING_BYTES,
                "decode_s": decode_s / scale,
            }
        )
    return figures[0], figures[1]


def decode(opening: Callable[[], Opened], form: UpdateFormat) -> NDArray[np.int64]:
    """The sums of the values."""
    return split_sums(opening().sums, form)


def measure_usual(d: int, runs: int) -> Figures:
    """The same figures for CKKS under one shared key."""
    scale = d / MILLION
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40])
    context.global_scale = 2**40
    update = np.random.default_rng(2).normal(0, 0.01, d)
    slices = [update[start : start + SLOTS].tolist() for start in range(0, d, SLOTS)]

    def encrypted() -> list[bytes]:
        return [ts.ckks_vector(context, part).serialize() for part in slices]

    encrypt_s, stored = cpu_seconds(encrypted, runs)

    def added() -> list[Any]:
        total = [ts.ckks_vector_from(context, part) for part in stored]
        for _ in range(MEMBERS - 1):
            for vector, part in zip(total, stored, strict=True):
                vector += ts.ckks_vector_from(context, part)
        return total

    sum_s, total = cpu_seconds(added, runs)
    decode_s, decoded = cpu_seconds(lambda: [vector.decrypt() for vector in total], runs)
    assert np.allclose(np.concatenate(decoded), MEMBERS * update, atol=1e-5), "the decoded sum is not the sum"
    return {
        "upload_bytes_per_param": sum(map(len, stored)) / d,
        "encrypt_s": encrypt_s / scale,
        "sum_s_per_member": sum_s / MEMBERS / scale,
        "opening_bytes": 0,
        "decode_s": decode_s / scale,
    }


def report(ours: Figures, by_seal: Figures, usual: Figures, d: int) -> None:
    """The table for people."""
    table = Table(
        title=f"The encrypted average, per 1,000,000 parameters (measured on {d:,})",
        caption=f"{MEMBERS} members. CKKS: TenSEAL, 8192, [60, 40, 40], 2**40, one key that every member holds: "
        "no opening, and no privacy among members.",
    )
    table.add_column("")
    for heading in ("numpy", "TenSEAL", "CKKS", "CKKS/numpy", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, label in LABELS.items():
        ratio = f"{usual[name] / ours[name]:.1f}" if usual[name] else "—"
        met = "green" if ours[name] <= TARGETS[name] else "red"
        table.add_row(
            label,
            f"[{met}]{shown(ours[name])}[/{met}]",
            shown(by_seal[name]),
            shown(usual[name]),
            ratio,
            f"≤ {shown(TARGETS[name])}",
        )
    Console().print(table)


def shown(figure: float) -> str:
    """Four digits or a whole number."""
    return f"{figure:,.0f}" if figure >= 1000 or figure == 0 else f"{figure:.4f}"


def address_of(index: int) -> Address:
    """Any address of a member."""
    return Address("0x" + f"{index + 1:040x}")


if __name__ == "__main__":
    main()
