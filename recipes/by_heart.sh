#!/usr/bin/env bash
# Does SSIUU keep spurious neurons from forming? On a small Llama that knows its answers by heart (recipes/by_heart.py).
#   OUT=where the runs go   SEEDS=3
set -euo pipefail
: "${OUT:?}"
base="grad_diff:lr=0.0002,batch_size=40,epochs=100,until=0.85,check_every=2"
relearn="steps=8+32,learning_rates=0.001,optimizer=adamw,batch_size=8,weight_decay=0"
methods="$base ssiuu($base) ssiuu($base):lambda_=1 ssiuu($base):norm=absolute,lambda_=0.01
  ssiuu($base):lambda_=1,reference=initial ssiuu($base):norm=absolute,lambda_=0.01,reference=initial"
unrecall bench --scenario "$(dirname "$0")/by_heart.py:make" --methods "$methods" \
  --suite "attribution relearn:share=0.1,$relearn relearn:share=0.3,$relearn" --seeds "${SEEDS:-3}" --device cpu --out "$OUT"
