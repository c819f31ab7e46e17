#!/usr/bin/env bash
# Two operators on two hosts, from a key to the bond's return: the walk of docs/operate.md, with every claim checked.
#
#     sudo devnet/scenarios/two-hosts.sh [--keep]
#
# The hosts are network namespaces, joined by one cable (veth); they are private to this script, so that whatever ends
# it, kill -9 included, ends them and all their processes too. Needs root, util-linux (unshare) and iproute2 (ip), and
# `make setup` done. About three minutes; gives up after fourteen. --keep leaves keys, journals and logs for inspection.
set -Eeuo pipefail

if [ -z "${TWO_HOSTS_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "two-hosts: needs root, to make network namespaces" >&2; exit 2; }
    for tool in ip unshare; do
        command -v "$tool" >/dev/null || { echo "two-hosts: needs '$tool' (iproute2, util-linux)" >&2; exit 2; }
    done
    export TWO_HOSTS_INSIDE=1
    exec unshare --mount --net --pid --fork --kill-child --mount-proc -- "$0" "$@"
fi

repository=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHON=${PYTHON:-$repository/.venv/bin/python}
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH}
task=$repository/peers/digits/task.py
CHAIN=192.0.2.1 A=192.0.2.1 B=192.0.2.2 # RFC 5737: addresses that are nobody's
CHAIN_ID=7117 CONFIRMATIONS=2 ROUNDS=3 CUT_S=36 MOST_S=840
work=$(mktemp -d)
keep=${1:-}
mkdir "$work/tmp"
export TMPDIR=$work/tmp # what the programs leave there goes with the rest

# What every operator sets once (and a password file or a prompt instead of the variable).
export FEDCHAIN_RPC=http://$CHAIN:8545 FEDCHAIN_IPFS=http://127.0.0.1:5001 FEDCHAIN_PASSWORD=correct-horse
export OMP_NUM_THREADS=1 COLUMNS=110
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

clean_up() {
    local code=$?
    trap - EXIT
    [ "$code" = 0 ] || echo "two-hosts: FAILED in step \"${now:-}\", line ${failed_at:-?} (code $code)" >&2
    # Only this script's processes live in its namespaces.
    for host in a b; do ip netns pids "host-$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true; done
    if [ "$keep" = --keep ]; then echo "kept: $work" >&2; else rm -rf "$work"; fi
    exit "$code"
}
trap 'failed_at=$LINENO' ERR
trap clean_up EXIT
trap 'exit 130' INT TERM
(sleep "$MOST_S" && echo "two-hosts: gave up after $MOST_S s" >&2 && kill -TERM 1) &

step() { now=$1 && printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

die() {
    echo "two-hosts: $*" >&2
    tail -n 3 "$work"/*/*.log >&2 || true
    exit 1
}

on() { # HOST COMMAND…: run in that host's network, in that operator's folder
    local host=$1
    shift
    (cd "$work/$host" && exec ip netns exec "host-$host" "$@")
}

fedchain() { # HOST ARGUMENT…: the fedchain command on that host
    local host=$1
    shift
    on "$host" "$PYTHON" -m fedchain.cli.main "$@"
}

shown() { # HOST ARGUMENT…: the same, with the command line printed first
    printf 'host-%s$ fedchain %s\n' "$1" "${*:2}"
    fedchain "$@"
}

refused() { # WORDS HOST ARGUMENT…: the command must fail with exit code 2 and one line that holds WORDS
    local words=$1 code=0 said
    shift
    printf 'host-%s$ fedchain %s\n' "$1" "${*:2}"
    said=$(fedchain "$@" 2>&1) || code=$?
    printf '%s\n' "$said"
    [ "$code" = 2 ] || die "expected exit code 2, got $code"
    [ "$(wc -l <<<"$said")" = 1 ] || die "expected one line"
    [[ $said == *"$words"* ]] || die "expected words: $words"
}

wait_for() { # SECONDS WHAT COMMAND…
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "not in time: $what"
        sleep 0.5
    done
}

coins() { # ADDRESS COINS: on a devnet coins are a wish; on a real chain somebody sends them
    on a "$PYTHON" -c 'import sys; from fedchain.chain.rpc import Rpc
Rpc(sys.argv[1]).call("anvil_setBalance", sys.argv[2], hex(int(sys.argv[3]) * 10**18))' "$FEDCHAIN_RPC" "$1" "$2"
}

event() { # PEER EVENT ROUND: how often the peer's log says so
    grep -s "\"event\": \"$2\"" "$work"/?/"$1"-peer-*/peer.log | grep -c "\"round\": $3[,}]" || true
}

said() { [ "$(event "$@")" -gt 0 ]; }

# Who runs where; the order is that of the members' indices.
hosts=(a a b b) names=(ada bob cleo dan)
declare -A pid

start_peer() { # INDEX OPTION…: in the background; no shell stands between us and the process
    local name=${names[$1]} host=${hosts[$1]}
    shift
    (cd "$work/$host" && exec ip netns exec "host-$host" "$PYTHON" -m fedchain.cli.main peer run federation \
        --key "$name.json" --deployment deployment.json --confirmations $CONFIRMATIONS "$@") \
        >>"$work/$host/$name.log" 2>&1 &
    pid[$name]=$!
}

step "two hosts and a cable between them"
mkdir -p /var/run/netns && mount -t tmpfs none /var/run/netns # names that nobody outside sees
mkdir "$work/a" "$work/b"
ip netns add host-a
ip netns add host-b
ip -n host-a link add eth0 type veth peer name eth0 netns host-b
ip -n host-a addr add $A/24 dev eth0
ip -n host-b addr add $B/24 dev eth0
for host in a b; do
    ip -n host-$host link set lo up
    ip -n host-$host link set eth0 up
done

step "a chain on host A: id $CHAIN_ID, a block every 2 s, none in between"
anvil=$("$PYTHON" -c 'from fedchain.devnet.anvil import find_anvil; print(find_anvil())')
on a "$anvil" --host 0.0.0.0 --port 8545 --chain-id $CHAIN_ID --block-time 2 --quiet \
    --cache-path "$work/a/old-states" >"$work/a/anvil.log" 2>&1 &
answers() { on b "$PYTHON" -c 'import sys; from fedchain.chain.rpc import *; chain_id(Rpc(sys.argv[1]))' "$FEDCHAIN_RPC"; }
wait_for 30 "the chain answers host B" answers

step "an IPFS node on each host, in one private swarm"
printf '/key/swarm/psk/1.0.0/\n/base16/\n%s\n' "$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')" >"$work/a/swarm.key"
chmod 600 "$work/a/swarm.key"
cp -p "$work/a/swarm.key" "$work/b/" # handed over in private
on a "$PYTHON" -m fedchain.store.node --repo ipfs --api-port 5001 --swarm-host $A --swarm-port 4001 \
    --swarm-key swarm.key >"$work/a/ipfs.log" 2>&1 &
wait_for 40 "IPFS node A is ready" grep -s '^ready' "$work/a/ipfs.log"
node_a=$(sed -n 's/^ready:.* swarm //p' "$work/a/ipfs.log")
on b "$PYTHON" -m fedchain.store.node --repo ipfs --api-port 5001 --swarm-host $B --swarm-port 4001 \
    --swarm-key swarm.key --peer "$node_a" >"$work/b/ipfs.log" 2>&1 &
wait_for 40 "IPFS node B is ready" grep -s '^ready' "$work/b/ipfs.log"
cat "$work/a/ipfs.log" "$work/b/ipfs.log"
on b "$PYTHON" -c 'from fedchain.store.ipfs import IpfsStore
from fedchain.errors import StoreUnreachable
assert len(IpfsStore("http://127.0.0.1:5001").peers()) == 1, "the nodes are not connected"
try:
    IpfsStore("http://'$A':5001", timeout_s=3, attempts=1).identity()
except StoreUnreachable as error:
    print(f"from host B: {error}")
else:
    raise SystemExit("the API of host A answers host B")'

step "each operator makes keys; addresses are exchanged, and get coins"
addresses=()
for i in "${!names[@]}"; do
    shown "${hosts[$i]}" key new "${names[$i]}.json" --fast
    address=$(fedchain "${hosts[$i]}" key show "${names[$i]}.json" | sed -n 's/^address *//p')
    addresses+=("$address")
done
coins "${addresses[0]}" 5
shown a key show ada.json --rpc "$FEDCHAIN_RPC" | tee "$work/shown"
grep -q "holds *5 coins on chain $CHAIN_ID" "$work/shown" || die "ada holds no coins"

step "the charter is agreed on: each operator compares its digest"
mkdir "$work/a/federation"
cp "$task" "$work/a/federation/task.py"
cat >"$work/a/federation/federation.toml" <<TOML
[federation]
name = "two-hosts"
members = [
$(printf '  "%s",\n' "${addresses[@]}")
]

[run]
rounds = $ROUNDS

[algorithm]
local_epochs = 3

[windows]
enrol_s = 300
training_s = 120
receipt_s = 120
aggregate_s = 30
challenge_s = 30

[stake]
bond_gwei = 10_000_000
TOML
cp -r "$work/a/federation" "$work/b/federation" # handed over
for host in a b; do shown $host charter federation | tee "$work/charter-$host"; done
diff <(tail -n +2 "$work/charter-a") <(tail -n +2 "$work/charter-b") || die "the charters differ"

step "one operator deploys"
refused "expected chain 1" a deploy federation --key ada.json --chain-id 1
refused "is empty" a deploy federation --key bob.json --chain-id $CHAIN_ID
shown a deploy federation --key ada.json --chain-id $CHAIN_ID --confirmations $CONFIRMATIONS
mv "$work/a/federation/deployment.json" "$work/a/"
cp "$work/a/deployment.json" "$work/b/" # handed over

step "the other operator checks what was handed over"
shown b verify --deployment deployment.json --confirmations $CONFIRMATIONS | tee "$work/verified"
digest=$(sed -n 's/^charter *//p' "$work/charter-b")
grep -q "charter ${digest:0:16}" "$work/verified" || die "the contract holds another charter"
cp -r "$work/b/federation" "$work/b/other"
echo "# improved" >>"$work/b/other/task.py"
refused "byte for byte" b enrol other --deployment deployment.json --key cleo.json

step "every member enrols: by hand, or as its peer starts"
for i in 1 2 3; do coins "${addresses[$i]}" 1; done
shown a enrol federation --deployment deployment.json --key ada.json --confirmations $CONFIRMATIONS
shown b status --deployment deployment.json
start_peer 0
for i in 1 2 3; do start_peer "$i" --enrol; done

step "the peers run; host B watches"
fedchain b status --deployment deployment.json --watch --every 3 >"$work/b/watch.log" 2>&1 &
watcher=$!
wait_for 240 "round 1 closes" said dan "round closed" 1
shown b status --deployment deployment.json

step "host B is cut off for $CUT_S s, in the middle of round 2"
wait_for 120 "cleo commits in round 2" said cleo "update committed" 2
ip -n host-b link set eth0 down
sleep 2
refused "the network is unreachable" b status --deployment deployment.json
sleep $((CUT_S - 2))
ip -n host-b link set eth0 up
grep -q '"event": "trying again"' "$work"/b/cleo-peer-*/peer.log || die "cleo noticed nothing"
wait_for 240 "round 2 closes" said cleo "round closed" 2
grep -h "trying again" "$work/b/cleo.log" | head -n 2

step "a peer is killed in the middle of round 3, and started again; a second copy is refused"
refused "another process runs this peer already" b peer run federation --key dan.json --deployment deployment.json
wait_for 120 "dan commits in round 3" said dan "update committed" 3
kill -9 "${pid[dan]}"
{ wait "${pid[dan]}" || [ $? = 137 ]; } 2>/dev/null
start_peer 3

step "the run ends; every peer stays until its bond is free, and ends by itself"
wait "$watcher" || die "the watch ended with code $?: $(tail -n 1 "$work/b/watch.log")"
grep -q "looking again" "$work/b/watch.log" || die "the watch saw no outage"
refused "the bond is locked until" b withdraw --deployment deployment.json --key dan.json
for name in "${names[@]}"; do
    wait "${pid[$name]}" || die "$name ended with code $?: $(tail -n 1 "$work"/?/"$name.log")"
done
shown b status --deployment deployment.json | tee "$work/ended"
grep -q "finished · $ROUNDS closed · 4 of 4 members count" "$work/ended" || die "the run is not finished"
grep -q "round 1 of $ROUNDS" "$work/b/watch.log" || die "host B saw no round 1"
for name in "${names[@]}"; do
    for round in $(seq $ROUNDS); do
        [ "$(event "$name" "update committed" "$round")" = 1 ] || die "$name committed in round $round not once"
        [ "$(event "$name" "opening published" "$round")" -le 1 ] || die "$name opened round $round twice"
    done
done
models=$(cd "$work" && cat ?/*-peer-*/peer.log | grep '"event": "run finished"' | grep -o '"model": "[0-9a-f]*"' | sort -u)
[ "$(wc -l <<<"$models")" = 1 ] || die "the members ended with different models"

step "a stranger on host B audits every round, with no key"
shown b audit --deployment deployment.json --confirmations $CONFIRMATIONS --json audit.json | tee "$work/audited"
grep -q '"verdict": "ok"' "$work/b/audit.json" || die "the audit found a fault"

step "bonds go back"
withdrawn() { fedchain "${hosts[$1]}" withdraw --deployment deployment.json --key "${names[$1]}.json" >"$work/withdrawn" 2>&1; }
for i in "${!names[@]}"; do
    wait_for 60 "${names[$i]} withdraws" withdrawn "$i"
    cat "$work/withdrawn"
done
shown b status --deployment deployment.json | tee "$work/ended"
[ "$(grep -c "bond taken back" "$work/ended")" = 4 ] || die "not every bond went back"

step "done"
