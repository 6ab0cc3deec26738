#!/usr/bin/env bash
# A TOFU table for a small Llama that is trained here: every method until forget is known as little as by a retrained model.
#   DATA=folder with tofu and alpaca   OUT=where the runs go   SEEDS, REFERENCES: 3 and 2
# With a GPU: MODEL=a hub id or folder, lr ten to a hundred times smaller.
set -euo pipefail
: "${DATA:?}" "${OUT:?}"
scenario="tofu:data=$DATA/tofu,references=${REFERENCES:-2}${MODEL:+,model=$MODEL}"
relearn="steps=8+32,learning_rates=0.0001+0.001,optimizer=adamw,batch_size=8,weight_decay=0"
attacks="relearn:share=0.1,$relearn relearn:share=0.3,$relearn
  relearn:data=benign,file=$DATA/alpaca/alpaca_en_demo.json,$relearn quantise loss min_k_plus_plus"
stop="until=0.25,epochs=15,check_every=5"
methods="grad_diff:lr=0.0003,$stop ssiuu(grad_diff:lr=0.0003,$stop)
  ssiuu(grad_diff:lr=0.0003,$stop):probability=mean,lambda_=1
  grad_ascent:optimizer=adamw,lr=0.0001,batch_size=32,weight_decay=0,$stop
  rmu:update=all,alpha=1,lr=0.001,batch_size=16,steps=150,until=0.25,check_every=10
  npo:lr=0.001,$stop simnpo:gamma=1,lr=0.001,$stop"
unrecall bench --scenario "$scenario" --methods "$methods" --suite "$attacks" --seeds "${SEEDS:-3}" --device cpu --out "$OUT"
