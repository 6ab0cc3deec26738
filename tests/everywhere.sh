#!/bin/sh
# The tests as other processors would run them: PyTorch's kernels for each, with and without MKL's and oneDNN's newest.
# The machine itself must have AVX-512.
failed=""
for kernels in default avx2 avx512; do
  for older in "" "MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2"; do
    setting="ATEN_CPU_CAPABILITY=$kernels${older:+ $older}"
    echo "== $setting"
    env $setting OMP_NUM_THREADS=1 "$@" || failed="$failed
  $setting"
  done
done
[ -z "$failed" ] || { echo "Failed under:$failed"; exit 1; }
