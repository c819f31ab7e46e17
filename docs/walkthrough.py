"""One round from five floating-point updates to one new model: `python docs/walkthrough.py`.

The cryptography and the rules are the real ones; what is missing is everything around them. A list stands for the
chain's log, a dictionary for the store, a counter for the clock, and a random vector for training. Each step is one
function named after its stage in docs/protocol.md, in the order in which a round runs. At the end t-1 members try to
read an update and cannot; then t members do, because the protocol does not prevent that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedchain.crypto import (
    Aggregate,
    NotEnoughOpenings,
    Opening,
    RoundContext,
    SpoiledRound,
    check_ciphertext,
    check_shares,
    deal,
    generate_encryption_key,
    make_opening,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.crypto.parameters import SHARE_PRIME
from fedchain.crypto.shamir import lagrange, point_of
from fedchain.protocol.arithmetic import average, counted_weights, next_model, quantise
from fedchain.protocol.charter import Charter, Federation, Update
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.events import (
    AggregateCommitted,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.ids import Address, Cid, Digest, Index, Root, bitmap_of, members_of, size_of
from fedchain.protocol.model import assemble, flatten, layout_from, layout_of, model_digest
from fedchain.protocol.participants import check_participants, choose_participants
from fedchain.protocol.phase import aggregator_of, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import apply, founded
from fedchain.protocol.update_format import join_values, split_sums, update_format

MEMBERS, THRESHOLD, PARAMETERS = 5, 3, 5_000
SAMPLES = (120, 300, 80, 450, 200)
CHAIN_ID, CONTRACT = 31337, Address("0x" + "fe" * 20)
GROUP = 0
SETTINGS = Update(clip_value=0.2, members_max=MEMBERS)
FORM = update_format(Charter(federation=Federation(name="walkthrough"), update=SETTINGS), PARAMETERS)
"""How an update becomes integers, and how these stand in what is encrypted."""

Floats = NDArray[np.float32]
Share = NDArray[np.uint16]


@dataclass(slots=True)
class Member:
    """What one member knows and nobody else does, apart from its index, address and public key."""

    index: Index
    address: Address
    private_key: bytes
    public_key: bytes
    update: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The update as integers: what it encrypts."""
    shares: dict[Index, Share] = field(default_factory=dict)
    """Its share of each dealer's one-time key."""


@dataclass(slots=True)
class World:
    """What everybody sees: the state that the log gives, the store, the time."""

    state: FederationState
    store: dict[Cid, bytes]
    now: int = 0

    def put(self, content: bytes) -> Cid:
        cid = cid_of(content)
        self.store[cid] = content
        return cid

    def say(self, event: Event) -> None:
        self.state = apply(self.state, event)

    @property
    def attempt(self) -> Attempt:
        attempt = live_attempt(self.state, self.now)
        assert attempt is not None
        return attempt

    @property
    def context(self) -> RoundContext:
        digest, _ = self.state.base_model(self.attempt.round)
        return RoundContext(CHAIN_ID, CONTRACT, self.attempt.round, self.attempt.attempt, digest)

    @property
    def keys(self) -> dict[Index, bytes]:
        return self.attempt.encryption_keys

    def dealing_of(self, dealer: Index) -> dict[str, object]:
        """What a dealing by this member is bound to."""
        return {
            "context": self.context,
            "dealer": dealer,
            "dealer_address": self.state.members[dealer].member,
            "encryption_keys": self.keys,
            "threshold": THRESHOLD,
        }


def main() -> None:
    """The round, top to bottom."""
    members = [make_member(i) for i in range(MEMBERS)]
    world = found(members)
    enrol(world, members)
    train(world, members)
    encrypt_and_commit(world, members)
    examine_and_post_receipts(world, members)
    aggregate = lock_and_aggregate(world)
    publish_openings(world, members)
    sums = close(world, aggregate)
    compare(world, members, sums)
    conspire(world, members)


def make_member(i: int) -> Member:
    private_key, public_key = generate_encryption_key()
    return Member(Index(i), Address(f"0x{i + 1:040x}"), private_key, public_key)


def found(members: list[Member]) -> World:
    """The federation comes into being: terms, founders, and the model that round 1 starts from."""
    heading("founding")
    genesis = assemble(layout_from({"weights": (PARAMETERS,)}), np.zeros(PARAMETERS, np.float32))
    store = {cid_of(genesis): genesis}
    terms = Terms(
        charter_digest=Digest(bytes(32)),
        charter_cid=cid_of(b"a charter would be here"),
        genesis_digest=model_digest(genesis),
        genesis_cid=cid_of(genesis),
        model_size=FORM.model_size,
        rounds=1,
        threshold=THRESHOLD,
        enrol_window_s=60,
        training_window_s=60,
        receipt_window_s=60,
        aggregate_window_s=60,
        challenge_window_s=60,
        close_window_s=86_400,
        bond_wei=0,
    )
    world = World(founded(FederationFounded(terms, tuple(m.address for m in members), at=0)), store)
    show("members, threshold", f"{MEMBERS}, {THRESHOLD}")
    show("least participants", f"max(3, t+1) = {terms.min_participants}")
    show("first model", f"{len(genesis):,} bytes, digest {short(terms.genesis_digest)}")
    return world


def enrol(world: World, members: list[Member]) -> None:
    """Each founder registers an X25519 key and a weight; with the last one the run begins."""
    heading("enrolling", world)
    for member, samples in zip(members, SAMPLES, strict=True):
        world.now += 1
        world.say(MemberEnrolled(member.index, member.address, member.public_key, samples, at=world.now))
    show("weights", ", ".join(str(samples) for samples in SAMPLES))


def train(world: World, members: list[Member]) -> None:
    """P1: everybody trains from the same model. Here the difference is drawn at random."""
    heading("training", world)
    common = np.random.default_rng(0).normal(0, 0.03, PARAMETERS)
    for member in members:
        own = np.random.default_rng(member.index + 1).normal(0, 0.02, PARAMETERS)
        member.update = (common + own).astype(np.float32)
    show("an update", f"{PARAMETERS:,} float32, {members[0].update.nbytes:,} bytes in the clear")


def encrypt_and_commit(world: World, members: list[Member]) -> None:
    """P1: quantise, encrypt under a fresh key, share out the key, store both objects, commit to both roots."""
    attempt = world.attempt
    weights = counted_weights(attempt, SETTINGS)
    for member in members:
        member.values = quantise(
            member.update,
            weight=weights[member.index],
            max_weight=max(weights.values()),
            form=FORM,
            rotation=world.context.rotation_seed,
            random=np.random.default_rng(100 + member.index),
        )
        coefficients = join_values(member.values, FORM)
        upload = deal(**world.dealing_of(member.index), coefficients=coefficients)  # type: ignore[arg-type]
        commitment = commitment_of(attempt, member.address, upload.ciphertext_root, upload.shares_root)
        if member.index == 0:
            show("as integers", f"{member.values.min()} to {member.values.max()}; {FORM.steps} stands for zero")
            show("in coefficients", f"{FORM.coefficients:,}, of {FORM.fields} values each")
            per_parameter = len(upload.ciphertext) / PARAMETERS
            show("ciphertext", f"{len(upload.ciphertext):,} bytes, {per_parameter:.2f} a parameter")
            show("shares of its key", f"{len(upload.shares):,} bytes, however long the update")
            show("ciphertext root", short(upload.ciphertext_root))
            show("shares root", short(upload.shares_root))
            show("commitment", short(commitment))
        world.now += 1
        cids = world.put(upload.ciphertext), world.put(upload.shares)
        world.say(UpdateCommitted(attempt.round, attempt.attempt, member.index, commitment, *cids, at=world.now))


def examine_and_post_receipts(world: World, members: list[Member]) -> None:
    """P2: everybody checks every upload and its own share of it, and says which are whole."""
    heading("receipts", world)
    attempt = world.attempt
    for member in members:
        for dealer, commit in attempt.commits.items():
            ciphertext, shares = world.store[commit.ciphertext_cid], world.store[commit.shares_cid]
            author, dealing = world.state.members[dealer].member, world.dealing_of(dealer)
            ciphertext_root = check_ciphertext(ciphertext, FORM.model_size, offender=author, round=attempt.round)
            shares_root = check_shares(shares, **dealing, offender=author)  # type: ignore[arg-type]
            assert commit.commitment == commitment_of(attempt, author, ciphertext_root, shares_root)
            member.shares[dealer] = open_share(
                shares,
                **dealing,  # type: ignore[arg-type]
                me=member.index,
                private_key=member.private_key,
            )
        world.now += 1
        whole = bitmap_of(tuple(member.shares))
        world.say(ReceiptPosted(attempt.round, attempt.attempt, member.index, whole, at=world.now))
    show("each receipt", f"{size_of(whole)} of {len(attempt.commits)} updates whole")
    show("a share", f"{members[0].shares[Index(1)].nbytes:,} bytes, its low-degree proof verified")


def lock_and_aggregate(world: World) -> Aggregate:
    """P3: the member whose turn it is posts the sum over the largest set it may, and so locks the set."""
    heading("aggregating", world)
    attempt = world.attempt
    aggregator = aggregator_of(world.state, attempt, world.now)
    participants = choose_participants(world.state, attempt)
    assert participants is not None
    check_participants(world.state, attempt, participants)
    blobs = [world.store[attempt.commits[i].ciphertext_cid] for i in members_of(participants)]
    aggregate = sum_ciphertexts(blobs, FORM.model_size)
    assert sum_ciphertexts(blobs[::-1], FORM.model_size).pack() == aggregate.pack(), "the order does not matter"
    world.now += 1
    spoken = aggregator, participants, aggregate.root(), world.put(aggregate.pack())
    world.say(AggregateCommitted(attempt.round, attempt.attempt, GROUP, *spoken, at=world.now))
    show("aggregator", f"member {aggregator}, by rotation")
    show("locked set", ", ".join(str(i) for i in members_of(participants)))
    show("sum of ciphertexts", f"{len(aggregate.pack()):,} bytes, as long as one of them")
    show("its root", short(aggregate.root()))
    return aggregate


def publish_openings(world: World, members: list[Member]) -> None:
    """P4: t shareholders publish the sum of their shares over the locked set; here the other two stay silent."""
    heading("opening", world)
    attempt = world.attempt
    assert attempt.aggregate is not None
    for member in members[-THRESHOLD:]:
        opening = make_opening([member.shares[i] for i in members_of(attempt.aggregate.participants)])
        world.now += 1
        spoken = member.index, opening.root(), world.put(opening.encode())
        world.say(OpeningPublished(attempt.round, attempt.attempt, GROUP, *spoken, at=world.now))
        show(f"opening of {member.index}", f"{len(opening.encode()):,} bytes, root {short(opening.root())}")


def close(world: World, aggregate: Aggregate) -> NDArray[np.int64]:
    """P5: anybody finds the sum of the keys, decodes the exact sums of integers, and makes the new model."""
    heading("closing", world)
    attempt, state = world.attempt, world.state
    locked = attempt.aggregate
    assert locked is not None
    opened = open_aggregate(
        aggregate,
        {i: Opening.parse(world.store[published.cid]) for i, published in attempt.openings.items()},
        threshold=THRESHOLD,
        participants=size_of(locked.participants),
        context=world.context,
        d=FORM.model_size,
    )
    digest, cid = state.base_model(attempt.round)
    base = world.store[cid]
    assert model_digest(base) == digest
    weights = counted_weights(attempt, SETTINGS)
    sums = split_sums(opened.sums, FORM)
    mean = average(
        sums,
        participants=size_of(locked.participants),
        total_weight=sum(weights[index] for index in members_of(locked.participants)),
        max_weight=max(weights.values()),
        form=FORM,
        rotation=world.context.rotation_seed,
    )
    model = assemble(layout_of(base), next_model(flatten(base), mean))
    world.now += 1
    roots = opened.key_sum_root, opened.result_root, world.put(opened.result.pack())
    spoken = locked.index, bitmap_of(opened.committee), *roots, model_digest(model), world.put(model)
    world.say(ResultCommitted(attempt.round, attempt.attempt, GROUP, *spoken, at=world.now))
    show("sum of the keys", f"coefficients of {opened.key_sum.min()} to {opened.key_sum.max()}")
    show("sum of the updates", f"integers of {sums.min():,} to {sums.max():,}, exact")
    show("new model", f"{len(model):,} bytes, digest {short(model_digest(model))}")
    show("phase of round 1", phase_of(world.state, 1, world.now).name.lower())
    return sums


def compare(world: World, members: list[Member], sums: NDArray[np.int64]) -> None:
    """The sums are those of the members' integers; from plain floats their average differs by rounding."""
    heading("compared with no encryption")
    state = world.state
    if not np.array_equal(sums, np.sum([m.values for m in members], axis=0)):
        raise SystemExit("the decoded sums are not the sums of what was encrypted")
    show("sums of the integers", f"all {sums.size:,} equal")
    plain = np.average([m.update for m in members], axis=0, weights=SAMPLES)
    model = flatten(world.store[state.model_cid])
    difference = float(np.abs(model - plain).max())
    # Six standard deviations of a sum of roundings, each of them at most half a step.
    bound = 6 * FORM.step / 2 * MEMBERS**0.5 * max(SAMPLES) / sum(SAMPLES)
    show("average of floats", f"largest difference {difference:.2e}, bound {bound:.2e}")
    if difference > bound:
        raise SystemExit("the encrypted average is not the plain one")


def conspire(world: World, members: list[Member]) -> None:
    """t-1 members pool everything they hold to read member 0's update, and fail; t members read it."""
    heading("who can read one update")
    target, colluders = members[0], members[-THRESHOLD:]
    attempt = world.state.closed[1]
    victim = sum_ciphertexts([world.store[attempt.commits[target.index].ciphertext_cid]], FORM.model_size)
    pooled = {m.index: Opening(m.shares[target.index]) for m in colluders}
    last, few = colluders[-1].index, {m.index: Opening(m.shares[target.index]) for m in colluders[:-1]}

    context = RoundContext(CHAIN_ID, CONTRACT, 1, 0, world.state.base_model(1)[0])

    def read(shares: dict[Index, Opening]) -> NDArray[np.int64]:
        size = FORM.model_size
        opened = open_aggregate(victim, shares, threshold=THRESHOLD, participants=1, context=context, d=size)
        return split_sums(opened.sums, FORM)

    try:
        read(few)
        raise SystemExit("t-1 members have read an update")
    except NotEnoughOpenings as reason:
        show(f"{len(few)} members", f"{reason}")
    guess = np.random.default_rng(7).integers(0, SHARE_PRIME, 2048).astype(np.uint16)
    try:
        read({**few, last: Opening(guess)})
        raise SystemExit("t-1 members have guessed an update")
    except SpoiledRound:
        show(f"{len(few)} and a guess", "refused: the key it gives is not small, and its noise not honest")
    possible = keys_that_fit({i: int(opening.elements[0]) for i, opening in few.items()}, last)
    show("what they know", f"of a key's first coefficient: {possible:,} values of {SHARE_PRIME:,} fit")
    values = read(pooled)
    weights = {"total_weight": SAMPLES[target.index], "max_weight": max(SAMPLES)}
    read_of_it = average(values, participants=1, **weights, form=FORM, rotation=context.rotation_seed)
    error = float(np.abs(read_of_it - target.update).max())
    show(f"{len(pooled)} members", f"read it, to {error:.1e}: trust that fewer than t collude")
    assert possible == SHARE_PRIME


def commitment_of(attempt: Attempt, author: Address, ciphertext_root: Root, shares_root: Root) -> Digest:
    return update_commitment(CHAIN_ID, CONTRACT, attempt.round, attempt.attempt, author, ciphertext_root, shares_root)


def keys_that_fit(shares: dict[Index, int], missing: Index) -> int:
    """How many values of one key coefficient agree with these t-1 shares, over everything the t-th may be."""
    weights = lagrange([point_of(i) for i in (*shares, missing)], 0)
    known = sum(int(w) * share for w, share in zip(weights, shares.values(), strict=False))
    return np.unique((known + int(weights[-1]) * np.arange(SHARE_PRIME)) % SHARE_PRIME).size


def heading(title: str, world: World | None = None) -> None:
    phase = f"  [phase of round 1: {phase_of(world.state, 1, world.now).name.lower()}]" if world else ""
    print(f"\n{title}{phase}")


def show(what: str, value: str) -> None:
    print(f"  {what:<20} {value}")


def short(digest: bytes) -> str:
    return digest.hex()[:16] + "…"


if __name__ == "__main__":
    main()
