#!/usr/bin/env bash
# Methods against attacks on three real models (verdict_real.py): beside five retrained models, and without any.
# Each strength is searched against relearning, under the same damage. Goes on where an earlier call stopped.
#   DATA=folder with cifar10, resnet_cifar10, stories260k, tinystories   OUT=where the runs go
#   CASES="resnet20 customers stories openings"   BASES="beside alone"   METHODS   JOBS=1   KL=0.05
#   SEEDS=2x2x2 (originals, unlearnings of each, evaluations of these)
set -euo pipefail
: "${DATA:?}" "${OUT:?}"
export DATA
texts="steps=1+4+16,learning_rates=0.0001+0.001,optimizer=adamw,batch_size=8,weight_decay=0"
for case in ${CASES:-resnet20 customers stories}; do
  if [ "$case" = resnet20 ]; then
    methods="finetune:epochs=3 neggrad_plus:epochs=3 salun(random_label:epochs=3) rurk:epochs=3 scrub"
    attacks=$(cat "$(dirname "$0")/suite-pictures.txt")
  else
    methods="grad_diff npo rmu jensun repselect undial"
    attacks="relearn:$texts relearn:data=benign,$texts quantise:bits=4,rounding=nf4 prune:shares=0.3 few_shot:ks=1+5
      multi_turn:turns=2 leak_at_k:ks=1+8,samples=8,temperatures=1 prefix:shares=0.5 interpolate loss min_k_plus_plus"
  fi
  for basis in ${BASES:-beside alone}; do
    seeds=${SEEDS:-2x2x2} suite=$attacks alone=""
    if [ $basis = alone ]; then seeds=${seeds%x*} suite=loss alone=--alone; fi
    unrecall bench --scenario "$(dirname "$0")/verdict_real.py:$case" --methods "${METHODS:-$methods}" --suite "$suite" $alone \
      --against relearn --kl "${KL:-0.05}" --seeds "$seeds" --jobs "${JOBS:-1}" --device cpu --out "$OUT/$case/$basis"
    unrecall report "$OUT/$case/$basis" --out "$OUT/$case/$basis.csv"
  done
done
