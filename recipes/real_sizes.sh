#!/usr/bin/env bash
# Real sizes on a small machine: all of CIFAR-10 with a trained ResNet-20, of which a class must go, judged without
# retrained models; and a language model of 308 million weights, of which eight texts must go, by LoRA.
#   CIFAR=folder of CIFAR-10   RESNET=resnet20.th   LLAMA=folder of a language model   TEXTS=folder with forget.jsonl,
#   retain.jsonl, holdout.jsonl and test.jsonl   OUT=where the runs go
set -euo pipefail
: "${OUT:?}"
if [ -n "${CIFAR:-}" ]; then
  unrecall run --scenario "cifar10:data=$CIFAR,weights=${RESNET:?},arch=resnet20,forget=class:3,references=0" \
    --method unsir --alone --device cpu --out "$OUT/cifar10" --suite "recalibration:counts=128
      residual_knowledge:points=2,draws=4 relearn:steps=1+4+16,learning_rates=0.01 prototypical:ks=5 loss"
fi
if [ -n "${LLAMA:-}" ]; then
  unrecall run --model "$LLAMA" --forget "${TEXTS:?}/forget.jsonl" --retain "$TEXTS/retain.jsonl" \
    --holdout "$TEXTS/holdout.jsonl" --test "$TEXTS/test.jsonl" --method npo:lr=0.0001,epochs=2,batch_size=4 \
    --lora r=16 --no-tune --anyway --alone --suite quick --device cpu --out "$OUT/llama"
fi
