#!/bin/sh
# On a machine with a device, NVIDIA's driver, NVRTC and PyTorch: parity, sanitizer, benchmark. Nothing is installed or
# changed. The full results go to the folder given, or to results/ beside this script; a short table comes last.
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
mkdir -p "$out"
export PGREC_CUDA=0
failed=0

"$here/kernels_tests" cuda --test-threads=1 >"$out/parity_kernels.log" 2>&1 || failed=1
"$here/engine_tests" --test-threads=1 >"$out/parity_engine.log" 2>&1 || failed=1
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
        timeout 180 compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/kernels_tests" cuda::attention cuda::linear \
            cuda::top_k --test-threads=1 >"$out/$tool.log" 2>&1
        echo "$tool: exit $?, $(tail -n 1 "$out/$tool.log")" >>"$out/sanitizer.txt"
    done
else
    echo "no compute-sanitizer here" >"$out/sanitizer.txt"
fi
"$here/cuda" >"$out/measured.jsonl" 2>"$out/measured.log" || failed=1
python3 "$here/report.py" "$out/measured.jsonl" "$out/report.json" >"$out/table.txt" 2>"$out/report.log" || failed=1

grep -h "^test \|panicked\|test result" "$out/parity_kernels.log" "$out/parity_engine.log"
cat "$out/sanitizer.txt"
tail -n 5 "$out/measured.log" "$out/report.log"
cat "$out/table.txt"
exit $failed
