#!/bin/sh
# On a machine with a device, NVIDIA's driver, NVRTC and PyTorch:
#
#     sh run.sh [RESULTS [PART...]]
#
# Parts are parity, benchmark, server and sanitizer: all of them unless some are named, in this order, so that a limit of
# time loses no figures. Nothing is installed or changed. The full results go to the folder given, or to results/ beside
# this script; a short table comes last.
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
if [ $# -gt 0 ]; then shift; fi
parts=${*:-parity benchmark server sanitizer}
mkdir -p "$out"
export PGREC_CUDA=0
failed=0

nvrtc=$(python3 "$here/nvrtc.py")
if [ -n "$nvrtc" ]; then export LD_LIBRARY_PATH="$nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; fi

# Every operator, and every family, beside the CPU.
parity() {
    timeout 300 "$here/kernels_tests" cuda --test-threads=1 >"$out/parity_kernels.log" 2>&1 || failed=1
    timeout 100 "$here/engine_tests" --test-threads=1 >"$out/parity_engine.log" 2>&1 || failed=1
    grep -h "^test \|panicked\|test result" "$out/parity_kernels.log" "$out/parity_engine.log" | tee "$out/parity.txt"
}

# Operators and whole batches beside PyTorch's.
benchmark() {
    timeout 200 "$here/cuda" >"$out/measured.jsonl" 2>"$out/measured.log" || failed=1
    timeout 200 python3 "$here/report.py" "$out/measured.jsonl" "$out/report.json" >"$out/benchmark.txt" \
        2>"$out/report.log" || failed=1
    tail -n 5 "$out/measured.log" "$out/report.log"
    timeout 100 "$here/generation" >>"$out/benchmark.txt" 2>"$out/generation.log" || failed=1
    tail -n 5 "$out/generation.log"
    cat "$out/benchmark.txt"
}

# Calls of SQL on the device, in the session and through the inference worker, in a Postgres that lives as long as this:
# the CPU's lists, then batch sizes and calls a second.
server() {
    pg=$(mktemp -d /tmp/pgrec-postgres.XXXXXX)
    chmod 755 "$pg"
    tar -xzf "$here/postgres.tar.gz" -C "$pg"
    export PGREC_PG16="$pg/postgres/package/install/bin/pg_config" CARGO_TARGET_DIR="$pg/target"
    timeout 100 "$here/server_tests" --test-threads=1 >"$out/server_tests.log" 2>&1 || failed=1
    grep "^test \|panicked\|test result" "$out/server_tests.log" | tee "$out/server.txt"
    timeout 150 "$here/worker" --cuda --items 0 --connections 50 --clients 1 --clients 16 --clients 64 --seconds 3 \
        --rounds 2 >"$out/worker.txt" 2>"$out/worker.log" || failed=1
    # Where the time was over, its server is left.
    pkill -KILL -f "$pg/postgres/package/install/bin/postgres"
    rm -rf "$pg"
    tail -n 3 "$out/worker.log"
    tee -a "$out/server.txt" <"$out/worker.txt"
}

# Over lengths of a few hundred events. What fills new memory would hide from initcheck what was not written.
sanitizer() {
    : >"$out/sanitizer.txt"
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ -z "$sanitizer" ]; then
        echo "no compute-sanitizer here: nothing was checked by it" | tee "$out/sanitizer.txt"
        return
    fi
    for tool in memcheck racecheck initcheck; do
        if [ "$tool" = initcheck ]; then unpoisoned=PGREC_CUDA_UNPOISONED=1; else unpoisoned=; fi
        env PGREC_CUDA_SHORT=1 $unpoisoned timeout 120 \
            "$sanitizer" --tool "$tool" --num-cuda-barriers 64 --error-exitcode 9 \
            "$here/kernels_tests" cuda::attention cuda::linear cuda::top_k cuda::tests --test-threads=1 \
            >"$out/$tool.log" 2>&1
        code=$?
        if [ "$code" -ne 0 ]; then failed=1; fi
        if [ "$code" -eq 124 ]; then ended="stopped after 120 s"; else ended="exit $code"; fi
        echo "$tool: $ended, $(tail -n 1 "$out/$tool.log")" | tee -a "$out/sanitizer.txt"
    done
}

for part in $parts; do
    start=$(date +%s)
    $part
    echo "-- $part took $(($(date +%s) - start)) s"
done

for part in $parts; do cat "$out/$part.txt"; done
exit $failed
