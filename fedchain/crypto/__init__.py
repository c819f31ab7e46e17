"""The encrypted average: one-time-key RLWE encryption, its sum, and its opening by any t of n (`docs/crypto.md`).

A round in five calls. Each trainer runs `deal`: a ciphertext, and sealed shares of a key that it then forgets. Each
shareholder runs `open_share` on what was dealt to it. The aggregator takes `sum_ciphertexts`. Each shareholder
publishes `make_opening` for the one locked participant set. Anybody runs `open_aggregate` on any t openings and gets
the same exact integers.

Importing this imports neither TenSEAL nor torch; the engine "tenseal" is loaded on first use.
"""

from __future__ import annotations

from .aggregate import Aggregate, EngineName, check_ciphertext, sum_ciphertexts
from .complaint import Accused, Findings, accused_in, charge, complaint_size, encode_complaint, judge_complaint
from .dealing import Place, shares_size
from .encoding import Blob
from .opening import NotEnoughOpenings, Opened, Opening, SpoiledRound, agree_on_key, make_opening, open_aggregate
from .parameters import OPENING_BYTES, aggregate_size, ciphertext_size, result_size
from .proofs import (
    CommittedUpload,
    opening_proof,
    prove_aggregate,
    prove_key_sum,
    prove_residue,
    prove_result,
    refute_aggregate,
    refute_key_sum,
    refute_result,
    with_leaves,
    wrong_coefficient,
)
from .pursuit import DeadEnd, Pages, ResultPursuit, pursue_sum
from .result import Result
from .sealing import generate_encryption_key
from .seed import RoundContext
from .showing import (
    Tree,
    aggregate_tree,
    key_sum_tree,
    result_tree,
    show_aggregate,
    show_ciphertext,
    show_key_sum,
    show_opening,
    show_result,
)
from .skellam import sample_skellam
from .upload import Upload, check_shares, deal, open_share

__all__ = [
    "OPENING_BYTES",
    "Accused",
    "Aggregate",
    "Blob",
    "CommittedUpload",
    "DeadEnd",
    "EngineName",
    "Findings",
    "NotEnoughOpenings",
    "Opened",
    "Opening",
    "Pages",
    "Place",
    "Result",
    "ResultPursuit",
    "RoundContext",
    "SpoiledRound",
    "Tree",
    "Upload",
    "accused_in",
    "aggregate_size",
    "aggregate_tree",
    "agree_on_key",
    "charge",
    "check_ciphertext",
    "check_shares",
    "ciphertext_size",
    "complaint_size",
    "deal",
    "encode_complaint",
    "generate_encryption_key",
    "key_sum_tree",
    "judge_complaint",
    "make_opening",
    "open_aggregate",
    "open_share",
    "opening_proof",
    "prove_aggregate",
    "prove_key_sum",
    "prove_residue",
    "prove_result",
    "pursue_sum",
    "refute_aggregate",
    "refute_key_sum",
    "refute_result",
    "result_size",
    "result_tree",
    "sample_skellam",
    "shares_size",
    "show_aggregate",
    "show_ciphertext",
    "show_key_sum",
    "show_opening",
    "show_result",
    "sum_ciphertexts",
    "with_leaves",
    "wrong_coefficient",
]
