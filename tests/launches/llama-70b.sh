#!/usr/bin/env bash
# Llama 3.1 70B on 8 nodes of 8 H100, as many run it.
torchrun --nnodes 8 --nproc-per-node 8 --rdzv-endpoint "$HEAD:29500" pretrain_gpt.py \
    --num-layers 80 --hidden-size 8192 --ffn-hidden-size 28672 --num-attention-heads 64 \
    --group-query-attention --num-query-groups 8 --seq-length 8192 --max-position-embeddings 8192 \
    --position-embedding-type rope --normalization RMSNorm --swiglu --disable-bias-linear \
    --untie-embeddings-and-output-weights --vocab-size 128256 --attention-dropout 0 --hidden-dropout 0 \
    --tensor-model-parallel-size 8 --sequence-parallel --pipeline-model-parallel-size 4 \
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --micro-batch-size 1 --global-batch-size 1024 --bf16 \
    --data-path "$DATA" --tokenizer-type HuggingFaceTokenizer --tokenizer-model meta-llama/Llama-3.1-70B \
    --lr 3e-4 --train-iters 10000
