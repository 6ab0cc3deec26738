#!/usr/bin/env bash
# The indirect unlearning attack on a real ResNet-20 for CIFAR-10: which methods let an adversary, who may only have
# other classes' pictures deleted, turn unseen pictures of the victim's class into the wished-for one.
#   DATA=folder of CIFAR-10   WEIGHTS=resnet20-12fca82f.th   OUT=where the runs go   [VICTIM=3 ANSWERED_AS=5 SEEDS=1 METHODS=...]
# On the digits, beside models that were retrained without what was asked for, with three seeds:
#   SCENARIO=digits RETRAIN=2 SIZES=30 VICTIM=3 ANSWERED_AS=8 SEEDS=3 OUT=where the runs go
#   python -m recipes.publish "$OUT" cifar10-indirect    (or digits-indirect) copies the records and writes the table to papers.md
# How to read the table: a method is hurt where "newly as wished" lies above "by random requests", that is, where the
# interval of "beyond random" is above 0. Look at "asked for, right" first: a method that still answers the requested
# pictures has hardly honoured the request, and withstands nothing. "By the surrogate" is what the adversary saw at home:
# a method far below it did not let the attack transfer. "Other classes, right" tells an attack from a collapse, and so
# does "by others as hard": other examples with the same losses, which are forgotten as thoroughly.
# Strengths are such that most of what is asked for is gone where a method can do that and be left with a model.
set -euo pipefail
: "${OUT:?}"
victim=${VICTIM:-3} answered_as=${ANSWERED_AS:-5}
scenario=${SCENARIO:-"cifar10-indirect:data=${DATA:?},weights=${WEIGHTS:?},victim=$victim,answered_as=$answered_as"}
attack="indirect:victim=$victim,answered_as=$answered_as,sizes=${SIZES:-100},controls=${CONTROLS:-3},retrain=${RETRAIN:-0}"
methods=${METHODS:-"grad_ascent:lr=0.001,epochs=30,batchnorm=frozen neggrad_plus:beta=0.3,epochs=2 roka scrub:lr=0.005,forget_batch=8 ssd rurk:lambda_f=0.3 spotter:lr=0.0005"}
unrecall bench --scenario "$scenario" --methods "$methods" --suite "$attack" --seeds "${SEEDS:-1}" --device cpu --out "$OUT"
