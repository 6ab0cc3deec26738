#!/usr/bin/env bash
# RURK's Table 1 on small CIFAR-5, as far as two cores reach: ResNet-20 from a pretrained checkpoint in place of the
# paper's ResNet-18 pretrained here, and one seed. With a GPU: drop weights= and arch=, set SEEDS=3.
#   DATA=folder of CIFAR-10   WEIGHTS=resnet20-12fca82f.th   OUT=where the runs go
set -euo pipefail
: "${DATA:?}" "${WEIGHTS:?}" "${OUT:?}"
scenario="small-cifar5:data=$DATA,weights=$WEIGHTS,arch=resnet20,references=${REFERENCES:-3}"
attacks="recalibration residual_knowledge:points=5,draws=20 relearn_time svc rmia"
# NTK's predicted length rests on where training began: the pretrained network with the fresh head of seed 0.
start="$OUT/start.safetensors"
mkdir -p "$OUT"
python - "$scenario" "$start" <<'END'
import sys
from pathlib import Path

from unrecall.disk import weights
from unrecall.spec.lines import parse
from unrecall.training.session import Session

weights.save(parse(sys.argv[1], "scenarios").make().untrained_model(0, Session()), Path(sys.argv[2]))
END
# RURK's appendix has lambda 0.1 for certified removal and names no noise: over all 1,000 examples that is 1e-4 each.
methods=${METHODS:-"certified_removal:penalty=0.0001,sigma=0 fisher ntk:start=$start influence finetune ngd grad_ascent neggrad_plus eu_k cf_k scrub ssd:alpha=100,importance=exact rurk rurk:batchnorm=frozen rurk:passes=separate random_label salun bad_teacher"}
unrecall bench --scenario "$scenario" --methods "$methods" --suite "$attacks" --seeds "${SEEDS:-1}" --device cpu --out "$OUT/untuned"
unrecall bench --scenario "$scenario" --methods "${TUNED:-rurk rurk:batchnorm=frozen scrub neggrad_plus}" --suite "$attacks" --tune --seeds "${SEEDS:-1}" \
  --device cpu --out "$OUT/tuned"
