#!/bin/sh
# sipedge.sh [PROXY OPTIONS]: sipedge-proxy doing the yardstick's job, in the foreground.
#   SIPEDGE_PROXY=PATH (default: the release build of this repository)   SHARDS=N (default 1; 0: one per core)
here=$(cd "$(dirname "$0")" && pwd)
out=${BENCH_OUT:-$here/out}
run=$out/sipedge
mkdir -p "$run/secrets"
sed "s/@SHARDS@/${SHARDS:-1}/" "$here/sipedge.yaml" > "$run/config.yaml"
# Keys that everybody knows: they are the bench's alone.
printf '{"branch": "%064d", "tokens": [{"id": 1, "key": "%064d"}]}\n' 1 2 > "$run/secrets/token-keys.json"
exec "${SIPEDGE_PROXY:-$here/../target/release/sipedge-proxy}" run --config "$run/config.yaml" --secrets "$run/secrets" \
    --control "$run/control.sock" --log-filter warn "$@"
