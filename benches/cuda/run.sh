#!/bin/sh
# On a machine with a device, NVIDIA's driver, NVRTC and PyTorch: parity, benchmarks, sanitizer, in this order, so that a
# limit of time does not lose figures. Nothing is installed or changed. The full results go to the folder given, or to
# results/ beside this script; a short table comes last.
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
mkdir -p "$out"
export PGREC_CUDA=0
failed=0

nvrtc=$(python3 "$here/nvrtc.py")
if [ -n "$nvrtc" ]; then export LD_LIBRARY_PATH="$nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; fi

"$here/kernels_tests" cuda --test-threads=1 >"$out/parity_kernels.log" 2>&1 || failed=1
"$here/engine_tests" --test-threads=1 >"$out/parity_engine.log" 2>&1 || failed=1
grep -h "^test \|panicked\|test result" "$out/parity_kernels.log" "$out/parity_engine.log"

"$here/cuda" >"$out/measured.jsonl" 2>"$out/measured.log" || failed=1
python3 "$here/report.py" "$out/measured.jsonl" "$out/report.json" >"$out/table.txt" 2>"$out/report.log" || failed=1
tail -n 5 "$out/measured.log" "$out/report.log"
cat "$out/table.txt"

# The inference worker on the device, in a Postgres that lives as long as this: batch sizes and calls a second.
pg=$(mktemp -d /tmp/pgrec-postgres.XXXXXX)
chmod 755 "$pg"
tar -xzf "$here/postgres.tar.gz" -C "$pg"
PGREC_PG16="$pg/postgres/bin/pg_config" CARGO_TARGET_DIR="$pg/target" timeout 150 "$here/worker" --cuda --items 0 \
    --clients 1 --clients 16 --clients 64 --seconds 3 --rounds 2 >"$out/worker.txt" 2>"$out/worker.log" || failed=1
# Where the time was over, its server is left.
pkill -KILL -f "$pg/postgres/bin/postgres"
rm -rf "$pg"
tail -n 3 "$out/worker.log"
cat "$out/worker.txt"

# Over lengths of a few hundred events. What fills new memory would hide from initcheck what was not written.
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
: >"$out/sanitizer.txt"
if [ -n "$sanitizer" ]; then
    export PGREC_CUDA_SHORT=1
    for tool in memcheck racecheck initcheck; do
        if [ "$tool" = initcheck ]; then export PGREC_CUDA_UNPOISONED=1; fi
        timeout 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$here/kernels_tests" cuda::attention cuda::linear \
            cuda::top_k cuda::tests --test-threads=1 >"$out/$tool.log" 2>&1
        code=$?
        if [ "$code" -ne 0 ]; then failed=1; fi
        if [ "$code" -eq 124 ]; then ended="stopped after 120 s"; else ended="exit $code"; fi
        echo "$tool: $ended, $(tail -n 1 "$out/$tool.log")" | tee -a "$out/sanitizer.txt"
    done
else
    echo "no compute-sanitizer here: nothing was checked by it" | tee "$out/sanitizer.txt"
fi

cat "$out/table.txt" "$out/worker.txt" "$out/sanitizer.txt"
exit $failed
