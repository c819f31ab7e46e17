"""A real peer's health and metrics while a round goes on; and that nothing secret is in anything it says or writes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from fedchain.chain.keys import encryption_files
from fedchain.cli.local import LocalFederation
from fedchain.crypto import Result, RoundContext, open_share, result_size, shares_size
from fedchain.crypto.shamir import centred, interpolate, point_of
from fedchain.devnet.network import Devnet
from fedchain.devnet.processes import free_ports
from fedchain.learn import local_data_of, train_locally
from fedchain.peer.contribution import values_of
from fedchain.protocol.arithmetic import counted_weights
from fedchain.protocol.ids import Index
from fedchain.protocol.outer import update_size_of
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.update_format import join_values, update_format
from fedchain.store.ipfs import IpfsStore

PEERS = Path(__file__).parents[2] / "peers"
WINDOWS = [
    "windows.enrol_s=60",
    "windows.training_s=60",
    "windows.receipt_s=20",
    "windows.aggregate_s=4",
    "windows.challenge_s=1",
    "run.rounds=1",
    "algorithm.local_epochs=1",
]
MEMBERS, SEED = 3, 5
PATIENCE_S = 240


class Ran:
    """A run of one round with three peers at debug level; what their pages said while it went on."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.local = LocalFederation.found(folder / "run", PEERS / "hospitals", MEMBERS, [*WINDOWS, f"run.seed={SEED}"])
        self.local.deploy(devnet)
        self.local.prepare_peers(devnet, poll_s=0.1)
        self.ports = free_ports(MEMBERS)
        for peer, port in zip(self.local.peers, self.ports, strict=True):
            peer.command += ["--metrics", f"127.0.0.1:{port}", "--log-level", "debug"]
            peer.start()
        self.said: list[bytes] = []
        self.healths: list[dict[str, object]] = []
        self.metrics = ""
        reader = self.local.reader(devnet)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._listen()
            self.state = reader.refresh()
            if phase_of(self.state, self.state.round, reader.now()) is Phase.FINISHED:
                break
            time.sleep(0.1)
        else:
            raise AssertionError([peer.last_words() for peer in self.local.peers])
        self.local.wait_for_peers(60)

    def _listen(self) -> None:
        for i, port in enumerate(self.ports):
            try:
                health = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=10)
                metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
            except requests.RequestException:
                continue  # not yet started, or ended
            self.said += [health.content, metrics.content]
            if i == 0:
                self.healths.append({"status": health.status_code, **health.json()})
                self.metrics = metrics.text

    @property
    def root(self) -> Path:
        """Where the members' folders are."""
        return self.local.workdir

    def written(self) -> dict[Path, bytes]:
        """Every file that peers wrote, but neither key files nor the federation's folder."""
        found = set(self.root.rglob("*"))
        key_files = {self.root / "password", *(self.local.key_of(i) for i in range(MEMBERS))}
        key_files |= {file for i in range(MEMBERS) for file in encryption_files(self.local.key_of(i)).values()}
        return {
            path: path.read_bytes()
            for path in sorted(found - key_files)
            if path.is_file() and not path.is_relative_to(self.local.folder)
        }


@pytest.fixture(scope="module")
def ran(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    run = Ran(devnet, tmp_path_factory.mktemp("health"))
    yield run
    run.local.stop_peers()


def test_a_real_peer_is_healthy_throughout_and_tells_what_it_does(ran: Ran) -> None:
    assert ran.healths
    assert {health["status"] for health in ran.healths} == {200}, ran.healths[-1]
    assert any("phase" in health for health in ran.healths)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(ran.metrics)
        for sample in family.samples
    }
    assert samples["fedchain_step_seconds_count", "train"] >= 1
    assert samples["fedchain_statements_total", "CommitUpdate", "made"] >= 1
    assert samples["fedchain_store_bytes_total", "up"] > 1000
    assert samples["fedchain_block_read",] > 0
    assert samples["fedchain_journal_bytes",] > 0
    assert samples["process_resident_memory_bytes",] > 10**8


def test_no_secret_is_in_logs_pages_journals_or_any_file_but_the_key_files(ran: Ran) -> None:
    secrets = Secrets(ran)
    said = b"\n".join(ran.said)
    files = ran.written()
    assert any(path.name == "peer.log" and b'"debug"' in content for path, content in files.items())
    assert any(path.name == "journal.jsonl" for path in files)
    assert not [name for name, needle in secrets.needles() if needle in said]
    leaks = [
        (str(path.relative_to(ran.root)), name)
        for path, content in files.items()
        for name, needle in secrets.needles()
        if needle in content
    ]
    assert leaks == []


def test_the_search_finds_each_secret_in_each_form(ran: Ran) -> None:
    secrets = Secrets(ran)
    for name, content in secrets.leaked():
        assert any(needle in content for found, needle in secrets.needles() if found == name), name


class Secrets:
    """What must not be anywhere, of every member: its keys, the shares it opened, the one-time keys, the updates.

    The shares are opened here with the members' keys, the one-time keys interpolated from them, the updates trained
    again from the same seed; that the updates are right shows in the sum, which is public.
    """

    def __init__(self, ran: Ran) -> None:
        attempt, local = ran.state.closed[1], ran.local
        store = IpfsStore(ran.devnet.ipfs_apis[0])
        self.texts = {"the password": (local.workdir / "password").read_bytes()}
        self.bytes: dict[str, bytes] = {}
        self.arrays: dict[str, np.ndarray] = {}
        context = RoundContext(
            chain_id=ran.devnet.chain_id,
            contract=local.deployment.address,
            round=1,
            attempt=attempt.attempt,
            model_digest=attempt.base_digest,
        )
        genesis = store.get(ran.state.terms.genesis_cid, 10**7)
        form = update_format(local.charter, update_size_of(genesis, local.charter))
        weights = counted_weights(attempt, local.charter.update)
        identities = [local.identity(i) for i in range(MEMBERS)]
        total = np.zeros(form.coefficients, dtype=np.uint64)
        for i, commit in sorted(attempt.commits.items()):
            self.bytes[f"signing key of {i}"] = identities[i].account_private
            self.bytes[f"X25519 key of {i}"] = identities[i].encryption_private
            blob = store.get(commit.shares_cid, shares_size(MEMBERS, attempt.threshold))
            shares = [
                open_share(
                    blob,
                    context,
                    dealer=i,
                    dealer_address=ran.state.accounts[i],
                    encryption_keys=attempt.encryption_keys,
                    threshold=attempt.threshold,
                    me=Index(j),
                    private_key=identities[j].encryption_private,
                )
                for j in range(MEMBERS)
            ]
            for j, share in enumerate(shares):
                self.arrays[f"share of {j} in the key of {i}"] = share
            points = [point_of(Index(j)) for j in range(attempt.threshold)]
            key = centred(interpolate(points, np.stack(shares[: attempt.threshold]).astype(np.int64)))
            assert np.abs(key).max() <= 42
            self.arrays[f"one-time key of {i}"] = key
            place = {"member": i, "round": 1, "attempt": attempt.attempt}
            data = local_data_of(local.task, i, MEMBERS, local.charter.run.seed)
            training, rounding = (seed_for(what, SEED, **place) for what in ("training", "rounding"))
            update = train_locally(local.task, genesis, local.charter.algorithm, data, training).update
            weight, largest = weights[i], max(weights.values())
            values = values_of(update, weight, largest, form, context.rotation_seed, rounding)
            total += join_values(values, form)
            self.arrays[f"update of {i}"] = update
            self.arrays[f"values of {i}"] = values
        assert attempt.result is not None
        d = ran.state.terms.model_size
        opened = Result.parse(store.get(attempt.result.result_cid, result_size(d)), d)
        assert np.array_equal(opened.coefficients.reshape(-1)[: form.coefficients], total), "these are the updates"

    def needles(self) -> Iterator[tuple[str, bytes]]:
        """Every secret in every form: whole keys, and stretches of what is long."""
        for name, text in self.texts.items():
            yield name, text
            yield from ((name, form) for form in forms_of(text))
        for name, key in self.bytes.items():
            yield from ((name, form) for form in forms_of(key))
            yield from ((name, str(int.from_bytes(key, order)).encode()) for order in ("big", "little"))
        for name, array in self.arrays.items():
            some = array[64:80]
            for kind in ("<i1", "<u2", "<i4", "<i8", "<f4", "<f8"):
                if np.array_equal(some.astype(kind).astype(some.dtype), some):
                    yield from ((name, form) for form in forms_of(some.astype(kind).tobytes()))
            for between in (", ", ",", " "):
                yield name, between.join(str(number) for number in some.tolist()).encode()

    def leaked(self) -> Iterator[tuple[str, bytes]]:
        """Each secret as careless code would write it."""
        for name, text in self.texts.items():
            yield name, b'{"password": "' + text + b'"}'
        for name, key in self.bytes.items():
            yield name, key
            yield name, b"0x" + key.hex().encode()
            yield name, b"xy" + base64.b64encode(b"z" + key)
            yield name, repr(int.from_bytes(key, "big")).encode()
        for name, array in self.arrays.items():
            yield name, array.tobytes()
            yield name, json.dumps(array.tolist()).encode()
            yield name, array.tobytes().hex().encode()
            yield name, base64.b64encode(b"head" + array.tobytes())


def forms_of(secret: bytes) -> Iterator[bytes]:
    """Raw, in hex of both cases, and in base64 wherever in a stream it begins."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret)
        # The first and last characters hold bits of the neighbours.
        yield whole[4 if before else 0 : 4 * ((before + len(secret)) // 3)]
        yield whole[4 if before else 0 : 4 * ((before + len(secret)) // 3)].replace(b"+", b"-").replace(b"/", b"_")
